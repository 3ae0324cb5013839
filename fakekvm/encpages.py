"""The kernel's bitmap of the guest's page encryption state, and its list of shared ranges."""

from __future__ import annotations

import errno

import numpy as np

from fakekvm.bits import Words, clear_range, extract, or_into, set_range, word_count, zeros
from fakekvm.decode import U64
from fakekvm.errors import oserror

__all__ = ["EncPages", "SharedList"]

# A host would run out of memory somewhere; here it is at 64 TiB of guest (2 GiB of bitmap).
_MAX_GFN = 1 << 34


class EncPages:
    """``page_enc_bmap``, kept inverted: 1 = shared, so that untouched parts take no memory.

    Attributes:
        size: the kernel's ``page_enc_bmap_size``: gfns from here on count as private. Bits of the
            last word behind it may be set: SET and GET of the old series copied whole words.
    """

    def __init__(self) -> None:
        self.size = 0
        self._shared = zeros(0)

    def resize(self, end_gfn: int) -> None:
        """Grow to ``end_gfn``, if it is not that large.

        Raises:
            OSError: ENOMEM.
        """
        if end_gfn <= self.size:
            return
        if end_gfn > _MAX_GFN:
            raise oserror(errno.ENOMEM)
        if word_count(end_gfn) > self._shared.size:
            grown = zeros(max(end_gfn, 2 * self.size))
            grown[: self._shared.size] = self._shared
            self._shared = grown
        self.size = end_gfn

    def mark(self, first: int, end: int, *, private: bool) -> None:
        """Set the state of gfns ``first`` to ``end - 1``, all of them below ``size``."""
        (clear_range if private else set_range)(self._shared, first, end)

    def private(self, first: int, nbits: int) -> Words:
        """1 = private, for ``nbits`` gfns from ``first`` on; ones behind them."""
        out = np.full(word_count(nbits), U64, "<u8")
        known = min(self.size, first + nbits & U64) - first
        if known > 0:
            shared = extract(self._shared, first, known)
            out[: shared.size] ^= shared
        return out

    def reset(self) -> None:
        """All private."""
        self._shared[: word_count(self.size)] = 0

    def copy_words(self, first: int, private: Words) -> None:
        """Whole words, from the one on that holds ``first``: neighbours at both ends included."""
        low = first // 64
        self._shared[low : low + private.size] = ~private

    def only_clear(self, first: int, nbits: int, private: Words) -> None:
        """Bits ``first`` to ``nbits - 1`` of ``private`` that are clear make gfns shared.

        The scan should begin at bit 0. Since it begins at ``first``, a range that lies higher than
        it is long changes nothing.
        """
        scanned = nbits - first
        if scanned > 0:
            or_into(self._shared, 2 * first, extract(~private, first, scanned), scanned)


class SharedList:
    """The list of v10 of the series, with what its code made of it.

    ``end`` is exclusive when a range is added but taken as inclusive when one is removed, so that
    removing part of a range loses a page more on each side; overlapping ranges are not merged.
    """

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []
        self.count = 0  # counted apart from the list, and not always its length

    def add(self, start: int, end: int) -> int:
        """A range becomes shared; returns what the guest gets: 1 for a new node, else 0."""
        place = next((i for i, r in enumerate(self.ranges) if r[1] >= start), len(self.ranges))
        if place < len(self.ranges) and self.ranges[place][0] <= start:
            self.ranges[place] = (self.ranges[place][0], end)
            return 0
        self.ranges.insert(place, (start, end))
        self.count += 1
        return 1

    def remove(self, start: int, end: int) -> int:
        """A range becomes private; returns what the guest gets: the change of the count."""
        holds = (i for i, r in enumerate(self.ranges) if r[0] <= start and end <= r[1])
        place = next(holds, None)
        if place is None:
            return 0
        low, high = self.ranges[place]
        if (low, high) == (start, end):
            left = []
        elif start == low:
            left = [(end + 1, high)]
        elif end == high:
            left = [(low, start - 1)]
        else:
            left = [(low, start - 1), (end + 1, high)]
        self.ranges[place : place + 1] = left
        change = len(left) - 1
        self.count += change
        return change
