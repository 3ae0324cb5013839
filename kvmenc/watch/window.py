"""One window: from a t = 0 on, the pages written since then, look by look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.capture import Window, WindowPoint
from kvmenc.memory.sync import GuestMaps

if TYPE_CHECKING:
    from kvmenc.capture import EndedBy
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.sync import PrivateSource
    from kvmenc.watch.peeks import Peek
    from kvmenc.watch.start import Start

__all__ = ["WindowLog"]


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
        return Window(
            start_ms=(self._start.at_s - opened_s) * 1e3,
            start_error_ms=self._start.error_s * 1e3,
            ended_by=why,
            points=tuple(self.points),
        )
