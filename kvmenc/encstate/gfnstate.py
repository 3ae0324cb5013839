"""The private/shared state of the gfns that some memslots cover: one bit a gfn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.memory.words import Words, clear_ranges, copy_bits, ones, ranges, set_ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from kvmenc.memory.slots import MemSlot

    Gfns = NDArray[np.int64]

__all__ = ["GFN_LIMIT", "GfnState"]

# Above every gfn there is: physical addresses have at most 52 bits.
GFN_LIMIT = 1 << 52


class GfnState:
    """Which gfns are private; all of them at first.

    The memory is one bit for each gfn of the slots given, whatever happens later. Memslots of
    several address spaces at the same gfns share their bits, as they share the pages' state. A gfn
    outside these slots is private and stays so.
    """

    def __init__(self, slots: Iterable[MemSlot]) -> None:
        runs = _merged(slots)
        self._base = np.array([base for base, _ in runs], np.int64)
        self._end = np.array([end for _, end in runs], np.int64)
        sizes = self._end - self._base
        self._bit = np.cumsum(sizes) - sizes  # where a run's first gfn lies in the bitmap
        self._words = ones(int(sizes.sum()))

    def set_range(self, gfn: int, npages: int, *, private: bool) -> int:
        """Make ``npages`` gfns from ``gfn`` on private or shared.

        Returns:
            How many of them are known here.
        """
        starts, ends, bits = self._known(gfn, gfn + npages)
        change = set_ranges if private else clear_ranges
        change(self._words, bits, bits + (ends - starts))
        return int((ends - starts).sum())

    def set_many(self, gfns: Gfns, end_gfns: Gfns, *, private: bool) -> int:
        """As ``set_range``, of any number of ranges; ``end_gfns`` are those after each's last."""
        change = set_ranges if private else clear_ranges
        known = 0
        for base, end, bit in zip(self._base, self._end, self._bit, strict=True):
            starts, ends = np.maximum(gfns, base), np.minimum(end_gfns, end)
            inside = starts < ends
            starts, ends = starts[inside], ends[inside]
            change(self._words, bit + (starts - base), bit + (ends - base))
            known += int((ends - starts).sum())
        return known

    def reset(self) -> None:
        """Everything is private again."""
        self._words[:] = ones(int((self._end - self._base).sum()))

    def words_of(self, slot: MemSlot) -> Words:
        """A copy of the slot's bits, 1 = private."""
        words = ones(slot.npages)
        starts, ends, bits = self._known(slot.base_gfn, slot.end_gfn)
        for start, end, bit in zip(starts.tolist(), ends.tolist(), bits.tolist(), strict=True):
            copy_bits(words, start - slot.base_gfn, self._words, bit, end - start)
        return words

    def shared_ranges(self) -> tuple[Gfns, Gfns]:
        """What is shared, as the list of ranges that a migration sends at its end.

        Each time it is made from the bitmap anew: how the guest announced it leaves no trace in it.

        Returns:
            First gfns, and those after the last ones, ascending. Ranges neither overlap nor touch:
            they go on where one slot follows another, and end at a hole.
        """
        npages = self._end - self._base
        private_starts, private_ends = ranges(self._words, int(npages.sum()))
        # Shared is what lies between: from a run's start, or where private ends, to what follows.
        # A private range that goes over from one run to the next leaves an empty one there.
        starts = np.sort(np.append(private_ends, self._bit), kind="stable")
        ends = np.sort(np.append(private_starts, self._bit + npages), kind="stable")
        some = starts < ends
        starts, ends = starts[some], ends[some]
        run = np.searchsorted(self._bit, starts, "right") - 1
        to_gfn = (self._base - self._bit)[run]
        return starts + to_gfn, ends + to_gfn

    def _known(self, gfn: int, end_gfn: int) -> tuple[Gfns, Gfns, Gfns]:
        """The known parts of a range: where each starts, ends, and lies in the bitmap."""
        gfn, end_gfn = min(gfn, GFN_LIMIT), min(end_gfn, GFN_LIMIT)
        first = int(np.searchsorted(self._end, gfn, "right"))
        last = max(first, int(np.searchsorted(self._base, end_gfn, "left")))
        part = slice(first, last)
        starts = np.maximum(self._base[part], gfn)
        ends = np.minimum(self._end[part], end_gfn)
        return starts, ends, self._bit[part] + (starts - self._base[part])


def _merged(slots: Iterable[MemSlot]) -> list[tuple[int, int]]:
    return list(_merge(sorted((slot.base_gfn, slot.end_gfn) for slot in slots)))


def _merge(runs: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    base, end = runs[0] if runs else (0, 0)
    for next_base, next_end in runs[1:]:
        if next_base > end:
            yield base, end
            base = next_base
        end = max(end, next_end)
    if base < end:
        yield base, end
