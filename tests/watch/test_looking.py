from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from kvmenc.encstate.simulated import ConstantSource
from kvmenc.errors import HostError
from kvmenc.memory.words import zeros
from kvmenc.watch.looking import Looking
from kvmenc.watch.peeks import Peeks
from kvmenc.watch.start import Start
from tests.watch.scripted import LAYOUT, SLOTS, Clock, ScriptedLog, look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kvmenc.capture import EndedBy
    from kvmenc.memory.slots import MemSlot
    from kvmenc.memory.sync import PrivateSource
    from kvmenc.memory.words import Words
    from tests.watch.scripted import State

SECONDS = 0.06  # looks at 25, 50 and 60 ms; the layout is checked from the second on
SHARED = ConstantSource(private=False)


class Log(ScriptedLog):
    """A script in which an exception is raised when its turn comes."""

    def look(self, slots: Sequence[MemSlot]) -> dict[MemSlot, Words]:
        if isinstance(self._script[0], BaseException):
            raise self._script[0]
        return super().look(slots)


def looking_at(
    script: Sequence[dict[MemSlot, State] | BaseException | None],
    private: PrivateSource = SHARED,
    change: Callable[[], EndedBy | None] = lambda: None,
    *,
    clean: bool = True,
) -> Looking:
    """The first line of the script is what is seen at t = 0."""
    peeks = Peeks(Log(Clock(), script), SLOTS, time.monotonic)  # type: ignore[arg-type]
    first = peeks.take().kept()
    start = Start(first.after_s, 0.001, took_s=0.0, first=first, clean=clean)
    looking = Looking(LAYOUT, private, peeks, start, change, None)
    looking.run(SECONDS, lambda _seconds, _pages: None)
    return looking


def counts(looking: Looking) -> list[tuple[int, ...]]:
    return [point.shared_pages for point in looking.log.points]


def test_points_count_the_pages_of_each_block_written_since_the_start() -> None:
    looking = looking_at([look(set()), look({1}), look({1, 2}), look({1, 2}, tiny={0})])
    assert counts(looking) == [(1, 0, 0), (2, 0, 0), (2, 0, 1)]
    assert looking.ended_by == "time"
    times = [point.ms for point in looking.log.points]
    assert [at >= due - 1 for at, due in zip(times, (25, 50, 60), strict=True)] == [True] * 3
    assert all(point.error_ms >= 1 for point in looking.log.points), "that of t = 0 at least"


def test_what_was_dirty_at_the_first_look_is_written_after_a_clean_start() -> None:
    assert counts(looking_at([look({9})])) == [(1, 0, 0)] * 3


def test_what_was_dirty_at_the_first_look_is_not_counted_where_the_start_was_not_clean() -> None:
    assert counts(looking_at([look({9}), look({9, 10})], clean=False)) == [(1, 0, 0)] * 3


def test_the_window_ends_where_another_reader_cleared_a_bit() -> None:
    looking = looking_at([look({1}), look({1}), look({1, 2}), look({2})])
    # The first look at 25 ms has nothing to compare with.
    assert (looking.ended_by, counts(looking)) == ("another-reader", [(1, 0, 0), (2, 0, 0)])


def test_the_window_ends_where_the_log_goes_off() -> None:
    looking = looking_at([look({1}), look({1}), None])
    assert (looking.ended_by, counts(looking)) == ("log-stopped", [(1, 0, 0)])


@pytest.mark.parametrize(
    ("trouble", "ended_by"),
    [(HostError("QEMU is gone"), "vm-gone"), (KeyboardInterrupt(), "interrupted")],
    ids=["gone", "Ctrl-C"],
)
def test_what_was_seen_before_trouble_is_kept(trouble: BaseException, ended_by: EndedBy) -> None:
    looking = looking_at([look({1}), look({1}), trouble])
    assert (looking.ended_by, counts(looking)) == (ended_by, [(1, 0, 0)])
    assert looking.trouble is trouble
    window = looking.window(opened_s=0.0)
    assert window is not None
    assert window.ended_by == ended_by


@pytest.mark.parametrize("why", ["layout-changed", "another-reader"])
def test_points_that_may_be_of_after_a_change_are_dropped(why: EndedBy) -> None:
    answers = iter([None, why])
    looking = looking_at([look({1}), look({1}), look({1, 2})], change=lambda: next(answers))
    assert (looking.ended_by, counts(looking)) == (why, [(1, 0, 0), (2, 0, 0)])


def test_a_window_without_a_point_is_none() -> None:
    assert looking_at([look({1}), None]).window(opened_s=0.0) is None


class Flipping:
    """Page 5 of the RAM is private at first, and shared from the third reading on."""

    name = "a script"
    readings = 0

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        self.readings += 1
        for slot in slots:
            words = zeros(slot.npages)
            if slot.base_gfn == 0x100 and self.readings < 3:
                words[0] = 1 << 5
            yield slot, words


def test_a_page_that_flips_counts_as_dirty_in_its_new_class() -> None:
    looking = looking_at([look(set())], Flipping())
    assert [p.private_pages[0] for p in looking.log.points] == [0, 0, 0]
    assert [p.shared_pages[0] for p in looking.log.points] == [0, 1, 1]


def test_pages_that_are_shared_from_the_start_are_not_taken_for_flipped() -> None:
    assert counts(looking_at([look(set())])) == [(0, 0, 0)] * 3
