"""One window: from a t = 0 on, the pages written since then, look by look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from kvmenc.capture import Window, WindowPoint
from kvmenc.memory.sync import GuestMaps

if TYPE_CHECKING:
    from kvmenc.capture import EndedBy
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.sync import PrivateSource
    from kvmenc.watch.peeks import Peek
    from kvmenc.watch.start import Start

__all__ = ["WindowLog"]

#: Long enough to tell how fast a guest writes.
_PACE_MS = 100.0


class WindowLog:
    """Looks become points of a curve, per RAMBlock and class.

    Args:
        layout: the guest's memslots and RAMBlocks.
        private: where private/shared comes from.
        start: its t = 0.

    Attributes:
        maps: dirty since t = 0, and private at the last look.
        points: so far.
    """

    def __init__(self, layout: Layout, private: PrivateSource, start: Start) -> None:
        self.maps = GuestMaps(layout)
        self.points: list[WindowPoint] = []
        self._private = private
        self._start = start
        # What a first sync finds shared is dirty by the rule of flips, yet nothing was written.
        self.maps.sync(start.first, private)
        self.maps.clear_dirty()

    def add(self, peek: Peek) -> WindowPoint:
        """What one look saw: distinct pages written since t = 0."""
        if not self._start.clean:
            peek = peek.since(self._start.first)
        self.maps.sync(peek, self._private)
        counts = [dirty.split(self.maps.private[name]) for name, dirty in self.maps.dirty.items()]
        private, shared = zip(*counts, strict=True)
        at_s = (peek.before_s + peek.after_s) / 2
        half_s = (peek.after_s - peek.before_s) / 2
        point = WindowPoint(
            ms=(at_s - self._start.at_s) * 1e3,
            error_ms=(half_s + self._start.error_s) * 1e3,
            private_pages=private,
            shared_pages=shared,
        )
        self.points.append(point)
        return point

    def end(self, opened_s: float, why: EndedBy) -> Window:
        """The window as it goes into a capture.

        Args:
            opened_s: when the capture began, by the clock of the looks.
            why: what ended it.
        """
        shift_ms, error_ms = self._refined_start()
        better_ms = self._start.error_s * 1e3 - error_ms
        points = [
            replace(it, ms=it.ms - shift_ms, error_ms=max(0.0, it.error_ms - better_ms))
            for it in self.points
        ]
        return Window(
            start_ms=(self._start.at_s - opened_s) * 1e3 + shift_ms,
            start_error_ms=error_ms,
            ended_by=why,
            points=tuple(it for it in points if it.ms > 0) or tuple(self.points),
        )

    def _refined_start(self) -> tuple[float, float]:
        """By the first look late enough to show the guest's pace."""
        telling = next((it for it in self.points if it.ms >= _PACE_MS), self.points[-1])
        pages = sum(telling.private_pages) + sum(telling.shared_pages)
        return self._start.refined(telling.ms, pages)
