"""Watch a running guest: sync again and again, and note what each sync found.

The curve is exact at its points: pages dirtied since the start, each counted once, because every
sync's dirty pages are added to one set.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvmenc.capture import BlockFacts, Capture, CurvePoint, SyncSample
from kvmenc.memory.maps import DirtyMap
from kvmenc.memory.sync import GuestMaps

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kvmenc.memory.layout import Layout
    from kvmenc.memory.sync import DirtySource, PrivateSource, SyncReport

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
        self._curve: list[CurvePoint] = []
        self._start_s = self._last_s = 0.0

    def start(self) -> SyncReport:
        """The sync that everything is counted from; what it found dirty happened before."""
        report = self.maps.sync(self._dirty, self._private)
        self.maps.clear_dirty()
        self._start_s = self._last_s = self._clock()
        return report

    def sync(self) -> SyncSample:
        """One sync: dirty pages since the one before, by class."""
        report = self.maps.sync(self._dirty, self._private)
        now_s = self._clock()
        sample = SyncSample(
            t_ms=(now_s - self._start_s) * 1e3,
            ms=(now_s - self._last_s) * 1e3,
            dirty_private_pages=report.dirty_private_pages,
            dirty_shared_pages=report.dirty_shared_pages,
            flipped_pages=report.flipped_pages,
        )
        self._last_s = now_s
        self._samples.append(sample)
        self._add_to_curve(sample.t_ms)
        return sample

    def _add_to_curve(self, t_ms: float) -> None:
        private = shared = 0
        for name, seen in self._seen.items():
            seen.merge(self.maps.dirty[name])
            seen_private, seen_shared = seen.split(self.maps.private[name])
            private += seen_private
            shared += seen_shared
        self.maps.clear_dirty()
        self._curve.append(CurvePoint(t_ms, private, shared))

    def capture(self, source: str, zero_pages: Mapping[str, int]) -> Capture:
        """What was seen, as a capture.

        Args:
            source: what was watched, in words.
            zero_pages: shared pages of only zeros, by RAMBlock, where they were counted.
        """
        blocks = tuple(
            BlockFacts(
                name=block.name,
                npages=block.npages,
                private_pages=self.maps.private[block.name].pages,
                zero_pages=zero_pages.get(block.name),
                unlogged_pages=self._layout.unlogged_pages(block),
            )
            for block in self._layout.blocks
        )
        return Capture(
            source=source,
            private_source=self._private.name,
            blocks=blocks,
            curve=tuple(self._monotone()),
            samples=tuple(self._samples),
        )

    def _monotone(self) -> list[CurvePoint]:
        """The curve with each class never falling.

        A page that was dirtied and then flipped moves from one class to the other; the class that
        lost it keeps its greatest count, so that neither is ever taken for quieter than it was.
        """
        points, private, shared = [], 0, 0
        for point in self._curve:
            private = max(private, point.private_pages)
            shared = max(shared, point.shared_pages)
            points.append(CurvePoint(point.ms, private, shared))
        return points
