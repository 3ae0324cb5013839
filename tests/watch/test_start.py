from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import pytest

from kvmenc.errors import HostError
from kvmenc.watch.peeks import Peeks
from kvmenc.watch.start import Start, find_start, shows_rom_dirty
from tests.watch.scripted import (
    ALL,
    CLEAR,
    FULL,
    LOOK_S,
    RAM,
    ROM,
    SLOTS,
    Clock,
    ScriptedLog,
    look,
    peeks_of,
)

if TYPE_CHECKING:
    from kvmenc.dirtysource import PeekSource
    from kvmenc.memory.slots import MemSlot
    from tests.watch.scripted import State


def start_of(*script: dict[MemSlot, State] | None) -> tuple[Start, float]:
    peeks, clock = peeks_of(script)
    asked_s = clock.now_s
    return find_start(peeks, SLOTS, lambda: None, clock), asked_s


def test_the_start_lies_between_the_last_look_at_all_ones_and_the_first_at_less() -> None:
    start, asked_s = start_of(None, ALL, ALL, look({7}))
    # The third look began after two; the fourth had ended after four.
    assert start.at_s == pytest.approx(asked_s + 3 * LOOK_S)
    assert start.error_s == pytest.approx(LOOK_S)
    assert start.took_s == pytest.approx(4 * LOOK_S)
    assert start.clean


def test_a_start_that_no_look_saw_lies_between_the_request_and_the_first_look() -> None:
    start, asked_s = start_of(look({7}))
    assert start.at_s == pytest.approx(asked_s + LOOK_S / 2)
    assert start.error_s == pytest.approx(LOOK_S / 2)


@pytest.mark.parametrize(
    ("seen", "shown"),
    [(look({7}, rom={69}), True), (ALL, True), (look(FULL, tiny=FULL), False)],
    ids=["a ROM page", "all", "all but ROM"],
)
def test_a_dirty_rom_page_is_none_that_a_guest_wrote(
    seen: dict[MemSlot, State], *, shown: bool
) -> None:
    assert shows_rom_dirty(peeks_of([seen])[0].take()) is shown


def test_blocks_that_are_cleared_one_after_the_other_widen_the_error() -> None:
    start, asked_s = start_of(ALL, look(CLEAR, FULL, FULL), look(CLEAR, FULL), look(CLEAR))
    assert start.at_s - start.error_s == pytest.approx(asked_s)
    assert start.at_s + start.error_s == pytest.approx(asked_s + 4 * LOOK_S)


def test_a_slot_that_the_guest_writes_wholly_and_at_once_does_not_hold_up_the_start() -> None:
    small = replace(ROM, readonly=False)
    clock = Clock()
    script: list[dict[MemSlot, State] | None] = [
        {RAM: FULL, small: FULL},
        {RAM: CLEAR, small: FULL},
    ]
    peeks = Peeks(cast("PeekSource", ScriptedLog(clock, script)), (RAM, small), clock)
    asked_s = clock.now_s
    start = find_start(peeks, (RAM, small), lambda: None, clock)
    assert start.at_s + start.error_s == pytest.approx(asked_s + 2 * LOOK_S)


def test_a_large_block_that_is_cleared_late_is_waited_for() -> None:
    late = 300  # looks: longer than anything is waited for that a guest can write
    script = [ALL, *[look(FULL, CLEAR)] * late, look(CLEAR)]
    start, asked_s = start_of(*script)
    assert start.at_s - start.error_s == pytest.approx(asked_s)
    assert start.at_s + start.error_s == pytest.approx(asked_s + (late + 2) * LOOK_S)


def test_a_tiny_slot_is_not_waited_for() -> None:
    start, asked_s = start_of(ALL, look(CLEAR, CLEAR, FULL))
    assert start.at_s + start.error_s == pytest.approx(asked_s + 2 * LOOK_S)


@pytest.mark.parametrize("forever", [None, ALL], ids=["no log", "never cleared"])
def test_a_log_that_is_never_cleared_is_an_error(forever: dict[MemSlot, State] | None) -> None:
    with pytest.raises(HostError, match="not cleared within 30 s"):
        start_of(forever)


def test_the_first_look_after_the_start_is_given() -> None:
    start, _ = start_of(ALL, look({1, 2}))
    assert start.first.words[RAM][0] == 0b110


def test_the_script_is_read_line_by_line() -> None:
    clock = Clock()
    log = ScriptedLog(clock, [look({1}), look({2})])
    assert [int(log.look([RAM])[RAM][0]) for _ in range(3)] == [2, 4, 4]


def test_a_slot_whose_log_is_not_on_yet_counts_as_not_cleared() -> None:
    start, asked_s = start_of({ROM: FULL}, look({7}))
    assert start.at_s - start.error_s == pytest.approx(asked_s)


def test_what_qemu_refuses_ends_the_waiting() -> None:
    def refuse() -> None:
        raise HostError("QEMU refuses")

    peeks, clock = peeks_of([None])
    with pytest.raises(HostError, match="QEMU refuses"):
        find_start(peeks, SLOTS, refuse, clock)


def refined(bracket_ms: float, seen: int, later: tuple[float, int]) -> tuple[float, float]:
    """Of a start that lies within ``bracket_ms``, with ``seen`` pages dirty at its end."""
    first = peeks_of([CLEAR_LOOK])[0].take()
    start = Start(1.0, bracket_ms / 2e3, 0.0, first, dirty_pages=seen)
    return start.refined(*later)


CLEAR_LOOK = look(CLEAR)


def test_a_guest_that_stood_still_while_its_log_was_cleared_begins_at_the_end_of_that() -> None:
    assert refined(32, 0, (116, 1000)) == (16, 4)


def test_pages_dirty_at_the_first_look_took_their_time_at_the_guests_pace() -> None:
    """10 pages a ms later on: the 50 that were dirty already took 5 ms."""
    assert refined(32, 50, (116, 1050)) == pytest.approx((16 - 5, 4))


def test_pages_that_all_were_written_at_once_say_nothing_beyond_the_bracket() -> None:
    assert refined(32, 900, (116, 910)) == (-16.0, 4.0)
    assert refined(32, 900, (116, 900)) == (0.0, 16.0)


def test_a_start_amid_other_readers_stays_as_it_is() -> None:
    first = peeks_of([CLEAR_LOOK])[0].take()
    start = Start(1.0, 0.016, 0.0, first, clean=False, dirty_pages=50)
    assert start.refined(116, 1050) == (0, 16)
