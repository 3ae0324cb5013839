"""How many distinct pages a guest dirties in how long.

This is far from a straight line (a hot page written a thousand times is one page), and that is why
one dirty rate cannot predict a migration: see A. Gudkov, "Migration time prediction using
calc-dirty-rate", qemu-devel, cover.1677589218.git.gudkov.andrei@huawei.com.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from kvmenc.capture import Capture

__all__ = ["ClassCurve", "DirtyCurve"]

#: So short that what is dirtied within it was dirtied at once.
_AT_ONCE_MS = 1e-9


@dataclass(frozen=True, slots=True)
class ClassCurve:
    """Distinct pages of one class dirtied within a time: straight lines between points.

    Attributes:
        ms: where the points are, growing, the first at 0.
        pages: how many pages there: 0 at 0 ms, never falling; after the last point no more.
    """

    ms: NDArray[np.float64]
    pages: NDArray[np.float64]

    @classmethod
    def through(cls, ms: Sequence[float], pages: Sequence[float], limit: float) -> ClassCurve:
        """Build from at least one point.

        Left of the first point runs the line through the first two, so that pages rewritten faster
        than was looked are not taken for idle; it may jump up at 0 ms, and never falls below 0.
        Right of the last point the last slope goes on until every page of the class is dirty.

        Args:
            ms: of the points; positive and growing.
            pages: of the points; never falling.
            limit: pages that exist.
        """
        if len(ms) == 1:
            first = last = pages[0] / ms[0]
        else:
            first = (pages[1] - pages[0]) / (ms[1] - ms[0])
            last = (pages[-1] - pages[-2]) / (ms[-1] - ms[-2])
        points = [(0.0, 0.0), (_AT_ONCE_MS, max(0.0, pages[0] - first * ms[0]))]
        points += zip(ms, pages, strict=True)
        if last and pages[-1] < limit:
            points.append((ms[-1] + (limit - pages[-1]) / last, limit))
        xs, ys = np.array(points).T
        return cls(xs, np.minimum(ys, limit))

    def at_speed(self, speed: float) -> ClassCurve:
        """The curve of a guest that runs at ``speed``, a share of what it did."""
        return ClassCurve(self.ms / speed, self.pages)

    def at(self, ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pages dirtied within each of ``ms``."""
        return np.interp(ms, self.ms, self.pages) if self.pages[-1] else np.zeros_like(ms)


@dataclass(frozen=True, slots=True)
class DirtyCurve:
    """The curves of both classes.

    Attributes:
        private: of the private pages.
        shared: of the shared pages.
    """

    private: ClassCurve
    shared: ClassCurve

    @classmethod
    def from_capture(cls, capture: Capture) -> DirtyCurve:
        """The curve that a capture holds."""
        ms = [point.ms for point in capture.curve]
        private, npages = capture.private_pages, capture.npages
        return cls(
            ClassCurve.through(ms, [point.private_pages for point in capture.curve], private),
            ClassCurve.through(
                ms, [point.shared_pages for point in capture.curve], npages - private
            ),
        )

    def at_speed(self, speed: float) -> DirtyCurve:
        """The curve of a guest that runs at ``speed``, a share of what it did."""
        return DirtyCurve(self.private.at_speed(speed), self.shared.at_speed(speed))

    def pages(self, ms: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Distinct (private, shared) pages dirtied within each of ``ms`` milliseconds."""
        times = np.asarray(ms, dtype=np.float64)
        return self.private.at(times), self.shared.at(times)
