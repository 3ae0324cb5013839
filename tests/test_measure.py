"""A recording against sets of pages: what was dirty since the start, and of which class."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture import SlotFacts, load_capture, save_capture
from kvmenc.measure import Recording
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.words import count, from_pages

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kvmenc.memory.words import Words

NPAGES, OFFSET, BLOCK_PAGES = 150, 13, 200
HOST = 0x7F0000000000

ZERO = from_pages(np.arange(7), BLOCK_PAGES)

LAYOUT = Layout(
    slots=[MemSlot(0, 0x100, NPAGES, HOST + OFFSET * 4096)],
    blocks=[RamBlock("ram", BLOCK_PAGES, HOST)],
)


class Pages:
    """A source of dirty or private pages, given as sets."""

    name = "sets of pages"

    def __init__(self, pages: set[int]) -> None:
        self.pages = pages

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        for slot in slots:
            yield slot, from_pages(np.array(sorted(self.pages), np.int64), slot.npages)


class Clock:
    """Ten milliseconds pass at each look."""

    now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 0.010
        return self.now_s


pages = st.sets(st.integers(0, NPAGES - 1), max_size=40)


@given(
    before=st.tuples(pages, pages), syncs=st.lists(st.tuples(pages, pages), min_size=1, max_size=6)
)
def test_every_sync_counts_what_is_new_and_the_curve_counts_each_page_once(
    before: tuple[set[int], set[int]], syncs: list[tuple[set[int], set[int]]]
) -> None:
    dirty, private = Pages(before[0]), Pages(before[1])
    recording = Recording(LAYOUT, dirty, private, Clock())
    recording.start()

    seen: set[int] = set()
    curve = []
    for written, now_private in syncs:
        flipped = private.pages ^ now_private
        dirty.pages, private.pages = written, now_private
        sample = recording.sync()
        new = written | flipped
        seen |= new
        assert sample.dirty_private_pages == len(new & now_private)
        assert sample.dirty_shared_pages == len(new - now_private)
        assert sample.flipped_pages == len(flipped)
        curve.append((len(seen & now_private), len(seen - now_private)))

    capture, bitmaps = recording.capture("a test", {"ram": ZERO})
    # Two looks at the clock a sync: its time is the middle, 5 ms off at most, as is that of t = 0.
    assert np.allclose([point.ms for point in capture.curve], 20.0 * np.arange(1, len(syncs) + 1))
    assert np.allclose([point.error_ms for point in capture.curve], 10.0)
    (window,) = capture.windows
    assert [(*it.private_pages, *it.shared_pages) for it in window.points] == curve
    in_block = np.array(sorted(seen), np.int64) + OFFSET
    assert np.array_equal(bitmaps["dirty", "ram"], from_pages(in_block, BLOCK_PAGES))
    # Never falling, class by class: see curve_of.
    expected = [tuple(map(max, zip(*curve[: n + 1], strict=True))) for n in range(len(curve))]
    assert [(point.private_pages, point.shared_pages) for point in capture.curve] == expected


def test_the_blocks_facts_are_those_of_the_last_sync() -> None:
    dirty, private = Pages(set()), Pages({0, 1, 2})
    recording = Recording(LAYOUT, dirty, private, Clock())
    recording.start()
    recording.sync()
    capture, bitmaps = recording.capture("a test", {"ram": ZERO})
    (block,) = capture.blocks
    in_no_slot = BLOCK_PAGES - NPAGES
    assert block.private_pages == 3 + in_no_slot, "what no slot covers stays at the default"
    assert (block.npages, block.zero_pages, block.unlogged_pages) == (BLOCK_PAGES, 7, in_no_slot)
    assert count(bitmaps["private", "ram"], BLOCK_PAGES) == block.private_pages
    assert bitmaps["zero", "ram"] is ZERO


def test_a_capture_says_where_the_pages_lay_and_what_was_taken_for_granted(tmp_path: Path) -> None:
    blocks = [*LAYOUT.blocks, RamBlock("bios", 16, HOST + 2**30, override="shared")]
    layout = Layout([*LAYOUT.slots, MemSlot(1, 0, 16, HOST + 2**30, log_dirty=False)], blocks)
    recording = Recording(layout, Pages(set()), Pages(set(range(16))), Clock())
    recording.start()
    recording.sync()
    capture, bitmaps = recording.capture("a test", {})
    assert capture.slots == (
        SlotFacts(0, 1, 0, 16, "bios", 0, readonly=False, log_dirty=False),
        SlotFacts(0, 0, 0x100, NPAGES, "ram", OFFSET, readonly=False, log_dirty=True),
    )
    assert capture.notes == ("bios is taken for shared, whatever the kernel says",)
    assert capture.provenance is not None
    assert capture.provenance.how == "sync"
    save_capture(capture, tmp_path / "a.capture", bitmaps)
    assert load_capture(tmp_path / "a.capture") == capture
