"""One curve from windows: what a plan needs to know of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.capture.model import CurvePoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kvmenc.capture.model import Window

__all__ = ["curve_of"]


def curve_of(windows: Sequence[Window]) -> tuple[CurvePoint, ...]:
    """The curve of a capture, from its windows.

    Its points are at the times of the window that reaches furthest. It grows from each to the next
    by the mean of what the windows that reach so far grew; so it is the mean of the windows as long
    as all of them last, it does not jump where a short one ends, and of a single window it is that
    window. It never exceeds what some window saw.

    Each class never falls. A page that was written and then flipped moves from one class to the
    other; the class that lost it keeps its greatest count, so that neither is ever taken for
    quieter than it was.

    Args:
        windows: none, or some that saw the same RAMBlocks.

    Returns:
        Points of growing ``ms``, whose ``error_ms`` are those of the window that reaches furthest;
        none if there is no window.
    """
    if not windows:
        return ()
    longest = max(windows, key=lambda window: window.points[-1].ms)
    ms = np.array([0.0, *(point.ms for point in longest.points)])
    private = _mean_growth(ms, [_totals(window, "private_pages") for window in windows])
    shared = _mean_growth(ms, [_totals(window, "shared_pages") for window in windows])
    return tuple(
        CurvePoint(point.ms, private_pages, shared_pages, point.error_ms)
        for point, private_pages, shared_pages in zip(longest.points, private, shared, strict=True)
    )


def _totals(window: Window, field: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Milliseconds, and pages of all RAMBlocks that never fall; both begin at 0."""
    ms = [0.0, *(point.ms for point in window.points)]
    pages = [0, *(sum(getattr(point, field)) for point in window.points)]
    return np.array(ms), np.maximum.accumulate(np.array(pages, np.float64))


def _mean_growth(
    ms: NDArray[np.float64], curves: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]
) -> list[int]:
    """Pages at each of ``ms`` but the first, which is 0."""
    growth, reach, most = np.zeros(ms.size - 1), np.zeros(ms.size - 1), 0.0
    for own_ms, pages in curves:
        reached = ms[1:] <= own_ms[-1]
        growth += np.diff(np.interp(ms, own_ms, pages)) * reached
        reach += reached
        most = max(most, pages[-1])
    pages = np.minimum(np.cumsum(growth / reach), most)
    rounded: list[int] = np.rint(pages).astype(np.int64).tolist()
    return rounded
