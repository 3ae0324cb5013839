"""Watch a running guest: sync again and again, and note what each sync found.

The curve is exact at its points: pages dirtied since the start, each counted once, because every
sync's dirty pages are added to one set.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvmenc.capture import (
    BlockFacts,
    Capture,
    SyncSample,
    Window,
    WindowPoint,
    curve_of,
    provenance_now,
    segment_facts,
    slot_facts,
)
from kvmenc.memory.maps import DirtyMap
from kvmenc.memory.sync import GuestMaps
from kvmenc.memory.words import count

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kvmenc.capture import BitmapKind, Bitmaps
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.slots import RamBlock
    from kvmenc.memory.sync import DirtySource, PrivateSource, SyncReport
    from kvmenc.memory.words import Words

__all__ = ["Recording"]


class Recording:
    """A guest being watched.

    Args:
        layout: its memslots and RAMBlocks.
        dirty: where its dirty bits come from.
        private: where private/shared comes from.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        layout: Layout,
        dirty: DirtySource,
        private: PrivateSource,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._layout = layout
        self._dirty = dirty
        self._private = private
        self._clock = clock
        self.maps = GuestMaps(layout)
        self._seen = {block.name: DirtyMap(block.npages) for block in layout.blocks}
        self._samples: list[SyncSample] = []
        self._points: list[WindowPoint] = []
        self._start_s = self._last_s = self._start_error_s = 0.0

    def start(self) -> SyncReport:
        """The sync that everything is counted from; what it found dirty happened before."""
        report, self._start_s, self._start_error_s = self._timed_sync()
        self._last_s = self._start_s
        self.maps.clear_dirty()
        return report

    def sync(self) -> SyncSample:
        """One sync: dirty pages since the one before, by class."""
        report, now_s, error_s = self._timed_sync()
        sample = SyncSample(
            t_ms=(now_s - self._start_s) * 1e3,
            ms=(now_s - self._last_s) * 1e3,
            dirty_private_pages=report.dirty_private_pages,
            dirty_shared_pages=report.dirty_shared_pages,
            flipped_pages=report.flipped_pages,
        )
        self._last_s = now_s
        self._samples.append(sample)
        self._points.append(self._point(sample.t_ms, (error_s + self._start_error_s) * 1e3))
        return sample

    def _timed_sync(self) -> tuple[SyncReport, float, float]:
        """A sync, the middle of the time that it took, and half of that time."""
        before_s = self._clock()
        report = self.maps.sync(self._dirty, self._private)
        after_s = self._clock()
        return report, (before_s + after_s) / 2, (after_s - before_s) / 2

    def _point(self, t_ms: float, error_ms: float) -> WindowPoint:
        """Add what this sync found to what was seen, and count that."""
        counts = []
        for name, seen in self._seen.items():
            seen.merge(self.maps.dirty[name])
            counts.append(seen.split(self.maps.private[name]))
        self.maps.clear_dirty()
        private_pages, shared_pages = zip(*counts, strict=True)
        return WindowPoint(t_ms, error_ms, private_pages, shared_pages)

    def capture(self, source: str, zero: Mapping[str, Words]) -> tuple[Capture, Bitmaps]:
        """What was seen, as a capture's facts and bitmaps.

        Args:
            source: what was watched, in words.
            zero: shared pages of only zeros, by RAMBlock, where they were looked for.
        """
        bitmaps: dict[tuple[BitmapKind, str], Words] = {}
        for name, seen in self._seen.items():
            bitmaps["dirty", name] = seen.words
            bitmaps["private", name] = self.maps.private[name].words
        bitmaps |= {("zero", name): words for name, words in zero.items()}
        return self._facts(source, zero), bitmaps

    def _facts(self, source: str, zero: Mapping[str, Words]) -> Capture:
        window = Window(0.0, self._start_error_s * 1e3, "time", tuple(self._points))
        return Capture(
            source=source,
            private_source=self._private.name,
            blocks=tuple(self._block(block, zero.get(block.name)) for block in self._layout.blocks),
            curve=curve_of([window]),
            samples=tuple(self._samples),
            slots=slot_facts(self._layout),
            windows=(window,),
            provenance=provenance_now("sync"),
            notes=tuple(
                f"{block.name} is taken for {block.override}, whatever the kernel says"
                for block in self._layout.blocks
                if block.override
            ),
        )

    def _block(self, block: RamBlock, zero: Words | None) -> BlockFacts:
        seen, private = self._seen[block.name], self.maps.private[block.name]
        return BlockFacts(
            name=block.name,
            npages=block.npages,
            private_pages=private.pages,
            zero_pages=None if zero is None else count(zero, block.npages),
            unlogged_pages=self._layout.unlogged_pages(block),
            segments=segment_facts(block.npages, seen.words, private.words, zero),
        )
