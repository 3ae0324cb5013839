"""The stream that a rehearsal keeps, read back: what the ledger tells, and who went wrong."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from fakekvm.guests import Flip, PortOut, Rest, WritePages, part_of, placed
from kvmenc.capture import BlockFacts, Capture, CurvePoint, open_capture, save_capture
from kvmenc.guest.scratch import PAGE
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.ordering.protocols import ASKED_ONCE, OWN
from kvmenc.plan import Parameters
from kvmenc.plan.result import Counts
from kvmenc.rehearsal import DryRun, Wanted, fake_source, near_target, rehearse
from kvmenc.rehearsal.vcpus import UP_PORT
from kvmenc.stream import PrivateRange, StreamReader, StreamReport, summarize
from kvmenc.stream.events import PrivateBitmaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from fakekvm.guests import Step
    from fakekvm.scripts import WritableGfns
    from kvmenc.memory.maps import PrivateMap
    from kvmenc.ordering.protocols import Protocol
    from kvmenc.stream.result import AgainstReport

BLOCK_PAGES, PRIVATE = 512, 256
BLOCKS = [
    RamBlock("low", BLOCK_PAGES, PAGE),
    RamBlock("high", BLOCK_PAGES, (1 + BLOCK_PAGES) * PAGE),
]
SLOTS = [
    MemSlot(number, 0x1000 * number, BLOCK_PAGES, block.host_addr)
    for number, block in enumerate(BLOCKS)
]
#: Rewritten each millisecond, private ones and shared ones; and those once it has calmed down.
HOT = (range(32, 160), range(512, 576))
CALM = (range(32, 80),)
#: It calms down when so many pages were sent: all RAM, and all hot ones three times.
CALMS_AT = 2 * BLOCK_PAGES + 3 * sum(map(len, HOT))
#: Converted once, after the first pages were sent: first made shared, then written.
CONVERTED = range(225, 233)
LIMITS = Parameters(private_rate_pps=500.0, downtime_limit_ms=150.0, time_limit_ms=5000.0)


class Converting:
    """Rewrites pages, until much was sent; converts some once, when something was."""

    about = "converts some pages once"

    def __init__(self, converted: range) -> None:
        self._converted, self._sent_pages = converted, 0

    def sent(self, pages: int) -> None:
        self._sent_pages += pages

    def script(self, _vm: int, _vcpu: int, writable: WritableGfns) -> Iterator[Step]:
        memory = list(writable().values())
        for area in part_of(memory, range(PRIVATE, sum(map(len, memory)))):
            yield Flip(area.start, len(area), private=False)
        yield PortOut(UP_PORT, 0)
        yield from placed(self._work(), memory)

    def _work(self) -> Iterator[Step]:
        for value in itertools.count(1):
            hot = HOT if self._sent_pages < CALMS_AT else CALM
            yield from (WritePages(pages, value) for pages in hot)
            if self._sent_pages and self._converted:
                yield Flip(self._converted.start, len(self._converted), private=False)
                yield WritePages(self._converted, 7)
                self._converted = range(0)
            yield Rest(1e-3)


class Kept(NamedTuple):
    """A rehearsal, the stream that it kept, and a capture of the guest as it was at the stop."""

    result: DryRun
    stream: Path
    capture: Path

    @property
    def report(self) -> StreamReport:
        with open_capture(self.capture) as capture:
            return summarize(self.stream, against=capture, against_name="end")

    @property
    def against(self) -> AgainstReport:
        found = self.report.against
        assert found is not None
        return found


def kept(folder: Path, converted: range, protocol: Protocol = OWN[1]) -> Kept:
    stream, capture = folder / "stream", folder / "capture"
    guest, manual = Converting(converted), protocol is not ASKED_ONCE
    with (
        stream.open("wb") as file,
        fake_source(guest, Layout(SLOTS, BLOCKS), manual_protect=manual) as source,
    ):
        wanted = Wanted(parameters=LIMITS, protocol=protocol, stream=file)
        result = rehearse(source, wanted, near_target, guest.sent).result
        save(source.side.private_now(), capture)
    return Kept(result, stream, capture)


def save(private: Mapping[str, PrivateMap], path: Path) -> None:
    blocks = tuple(
        BlockFacts(name, it.npages, int(it.at(np.arange(it.npages)).sum()), None, 0)
        for name, it in private.items()
    )
    capture = Capture(
        source="a test", private_source="a test", blocks=blocks, curve=(CurvePoint(1, 0, 0),)
    )
    save_capture(capture, path, {("private", name): it.words for name, it in private.items()})


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return kept(tmp_path_factory.mktemp("steady"), range(0))


@pytest.fixture(scope="module")
def converting(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return kept(tmp_path_factory.mktemp("converting"), CONVERTED)


def test_the_stream_tells_what_the_ledger_tells(steady: Kept) -> None:
    """By road and round, as each round of this guest sends pages that the one before has sent."""
    ledger, report = steady.result.ledger, steady.report
    assert steady.result.verdict == "whole"
    assert len(ledger.rounds) > 4
    assert [(it.pages, it.stopped) for it in report.rounds] == [
        (it.pages, it.stopped) for it in ledger.rounds
    ]
    for ours, theirs in zip(report.rounds, ledger.rounds, strict=True):
        named_bytes = ours.bytes.total - theirs.bytes.total
        assert 0 <= named_bytes <= 2 * len(BLOCKS) * len("_high"), "a RAMBlock's name, counted"
    pages = report.pages
    assert Counts(pages.normal, pages.zero, pages.encrypted) == ledger.totals.pages
    assert (report.bytes.unread, report.why_unread) == (0, "")


def test_its_rounds_tell_apart_the_guests_ramblocks(steady: Kept) -> None:
    """All private pages lie in the first."""
    report = steady.report
    assert [(it.name, it.npages, it.sent_pages) for it in report.blocks] == [
        (it.name, it.npages, it.npages) for it in BLOCKS
    ]
    for told, round_ in zip(report.rounds, steady.result.ledger.rounds, strict=True):
        of = {it.name: it.pages for it in told.blocks}
        assert of["low"].encrypted == round_.pages.encrypted
        shared = of.get("high", Counts(0, 0, 0))
        assert (of["low"].normal + shared.normal, of["low"].zero + shared.zero) == (
            round_.pages.normal,
            round_.pages.zero,
        )


def test_the_private_state_that_it_ends_with_is_the_guests(converting: Kept) -> None:
    state = converting.report.private_state
    assert state is not None
    assert state.private_pages == PRIVATE - len(CONVERTED)
    with converting.stream.open("rb", buffering=0) as file:
        ranges = [
            it
            for event in StreamReader(file, "stream")
            if isinstance(event, PrivateBitmaps)
            for it in event.ranges
        ]
    assert [(it.base_gfn, it.npages) for it in ranges] == [(it.base_gfn, it.npages) for it in SLOTS]
    assert sum(private_pages(it) for it in ranges) == state.private_pages


def private_pages(it: PrivateRange) -> int:
    return int(np.unpackbits(it.words.view(np.uint8), count=it.npages, bitorder="little").sum())


def test_against_a_capture_of_a_guest_that_converts_nothing_no_page_is_named(steady: Kept) -> None:
    found = steady.against
    assert (found.compared_pages, found.wrong_pages, found.ranges) == (2 * BLOCK_PAGES, 0, [])


def test_by_the_right_protocol_converted_pages_go_the_right_road_at_last(converting: Kept) -> None:
    found = converting.against
    assert converting.result.verdict == "whole"
    assert (found.at_last_pages, found.private_in_clear_pages) == (0, 0)
    assert named(found) == {("low", page) for page in CONVERTED}


def test_by_a_broken_protocol_those_pages_are_named_and_wrong_to_the_last(tmp_path: Path) -> None:
    result, _, _ = run = kept(tmp_path, CONVERTED, ASKED_ONCE)
    assert (result.verdict, result.runs_at) == ("wrong", "destination")
    assert result.comparison is not None
    assert result.comparison.wrong_states == len(CONVERTED)
    assert run.against.at_last_pages == len(CONVERTED)
    assert {it.was for it in run.against.ranges} == {"shared"}
    assert named(run.against) == {("low", page) for page in CONVERTED}


def named(found: AgainstReport) -> set[tuple[str, int]]:
    ranges = ((it.block, range(it.page, it.page + it.npages)) for it in found.ranges)
    return {(block, page) for block, pages in ranges for page in pages}
