"""How many distinct pages a guest dirties in how long.

This is far from a straight line (a hot page written a thousand times is one page), and that is why
one dirty rate cannot predict a migration: see A. Gudkov, "Migration time prediction using
calc-dirty-rate", qemu-devel, cover.1677589218.git.gudkov.andrei@huawei.com.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import ArrayLike, NDArray

    from kvmenc.capture import Capture
    from kvmenc.plan.segments import Segments

__all__ = ["ClassCurve", "DirtyCurve", "Part"]

#: So short that what is dirtied within it was dirtied at once.
_AT_ONCE_MS = 1e-9
_SHARED, _PRIVATE = 0, 2


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

    def at(self, ms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Pages dirtied within each of ``ms``."""
        return np.interp(ms, self.ms, self.pages)

    def split(self, pages: float) -> tuple[ClassCurve, ClassCurve]:
        """The first so many pages to be dirtied, and those after them."""
        ms = np.union1d(self.ms, np.interp(pages, self.pages, self.ms))
        values = self.at(ms)
        first = np.minimum(values, pages)
        return ClassCurve(ms, first), ClassCurve(ms, values - first)


@dataclass(frozen=True, slots=True)
class Part:
    """Pages that are dirtied in one way.

    Attributes:
        road: of these pages, as an index of ``ByRoad``.
        curve: how many.
        where: which pages: those that were dirtied while the guest was watched; those that were
            not; or those that devices write.
        block_shares: how they are shared out among the RAMBlocks; None: by their pages.
    """

    road: int
    curve: ClassCurve
    where: Literal["seen", "beyond", "devices"]
    block_shares: tuple[float, ...] | None = None

    @property
    def by_devices(self) -> bool:
        """Whether devices write them, past KVM's log."""
        return self.where == "devices"

    def shares(self, segments: Segments) -> NDArray[np.float64]:
        """Which share of them each segment has."""
        exist = segments.pages[:, self.road]
        if segments.dirty is not None and self.where != "devices":
            seen = segments.dirty[:, 0 if self.road == _SHARED else 1]
            exist = seen if self.where == "seen" else np.maximum(0.0, exist - seen)
        if self.block_shares is not None:
            in_block = np.bincount(segments.block, exist).astype(np.float64)[segments.block]
            of_block: NDArray[np.float64] = np.array(self.block_shares)[segments.block]
            return of_block * _ratio(exist, in_block)
        if not exist.any():
            exist = segments.width
        return _ratio(exist, exist.sum())


def _ratio(part: NDArray[np.float64], whole: ArrayLike) -> NDArray[np.float64]:
    return np.divide(part, whole, out=np.zeros_like(part), where=np.greater(whole, 0))


@dataclass(frozen=True, slots=True)
class DirtyCurve:
    """What a guest dirties.

    Attributes:
        parts: together everything; none of an idle guest.
    """

    parts: tuple[Part, ...]

    @classmethod
    def from_capture(cls, capture: Capture) -> DirtyCurve:
        """The curves that a capture holds."""
        return cls(tuple(it for it in _parts(capture) if it.curve.pages[-1]))

    def pages(self, ms: float) -> float:
        """Distinct pages dirtied within so long, by vCPUs and devices."""
        return sum(float(part.curve.at(np.array(ms))) for part in self.parts)


def _parts(capture: Capture) -> Iterator[Part]:
    ms, private = [point.ms for point in capture.curve], capture.private_pages
    pages = _settled(capture, "private_pages")
    yield from _of_vcpus(capture, _PRIVATE, ClassCurve.through(ms, pages, private))
    pages = _settled(capture, "shared_pages")
    yield from _of_vcpus(capture, _SHARED, ClassCurve.through(ms, pages, _in_use(capture, pages)))
    if capture.device and any(sum(it.pages) for it in capture.device.points):
        yield _of_devices(capture)


def _settled(capture: Capture, field: Literal["private_pages", "shared_pages"]) -> list[float]:
    """The curve's points, and its end where the longest window ends.

    A curve is the mean of its windows as far as they reach. Beyond the others, that the longest
    one had begun above or below the mean would shift all that follows, also the most it comes to.
    """
    pages = [float(getattr(point, field)) for point in capture.curve]
    reach = sorted(window.points[-1].ms for window in capture.windows)
    if len(reach) < 2:
        return pages
    longest = max(capture.windows, key=lambda it: it.points[-1].ms)
    end = float(max(sum(getattr(point, field)) for point in longest.points))
    early = [i for i, point in enumerate(capture.curve) if point.ms <= reach[-2]]
    at = early[-1] if early else 0
    base, grown = pages[at], pages[-1] - pages[at]
    if not grown or end < base:
        return pages
    return pages[:at] + [base + (it - base) * (end - base) / grown for it in pages[at:]]


def _in_use(capture: Capture, pages: Sequence[float]) -> float:
    """Shared pages that may come to be written: those that are still zero are taken not to be."""
    shared = capture.npages - capture.private_pages
    zero = sum(block.zero_pages or 0 for block in capture.blocks)
    return min(shared, max(shared - zero, pages[-1]))


def _of_vcpus(capture: Capture, road: int, curve: ClassCurve) -> Iterator[Part]:
    segments = [it for block in capture.blocks for it in block.segments]
    field = "dirty_private_pages" if road == _PRIVATE else "dirty_shared_pages"
    seen = sum(getattr(it, field) for it in segments)
    if not seen or seen >= curve.pages[-1]:
        yield Part(road, curve, "seen")
        return
    first, after = curve.split(seen)
    yield Part(road, first, "seen")
    yield Part(road, after, "beyond")


def _of_devices(capture: Capture) -> Part:
    """Of shared pages: a device cannot write a private one so that the guest could read it.

    An estimate that falls, since a vCPU wrote those pages later, is not followed down.
    """
    assert capture.device is not None
    points = capture.device.points
    totals = np.maximum.accumulate([sum(it.pages) for it in points]).tolist()
    limit = _in_use(capture, totals)
    largest = max(points, key=lambda it: sum(it.pages)).pages
    shares = tuple(pages / sum(largest) for pages in largest)
    curve = ClassCurve.through([it.ms for it in points], totals, limit)
    return Part(_SHARED, curve, "devices", shares)
