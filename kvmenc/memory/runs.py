"""Where runs of ones begin and end: from words to edges, and from ranges of pages to words."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import InputError
from kvmenc.memory.chunks import FULL, Pages, Words, check_range, chunks, scratch_for

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["edges_of", "split_ranges"]


def edges_of(words: Words) -> Iterator[Pages]:
    """Positions of the bits that differ from the bit before them, a chunk's at a time."""
    scratch, carry = scratch_for(words.size * 64), np.uint64(0)
    for where in chunks(words.size):
        chunk = words[where]
        before = np.left_shift(chunk, np.uint64(1), out=scratch[0, : chunk.size])
        last_bits = np.right_shift(chunk, np.uint64(63), out=scratch[1, : chunk.size])
        np.bitwise_or(before[1:], last_bits[:-1], out=before[1:])
        before[0] |= carry
        carry = last_bits[-1]
        differs = np.bitwise_xor(before, chunk, out=before)
        touched = np.flatnonzero(differs != 0)
        hits = np.flatnonzero(np.unpackbits(differs[touched].view(np.uint8), bitorder="little"))
        yield (touched[hits >> 6] + where.start) * 64 + (hits & 63)


def split_ranges(
    words: Words, starts: Pages, ends: Pages
) -> tuple[Pages, Words, Iterator[tuple[int, int]]]:
    """Cut ranges, ends exclusive, into what can be set or cleared at once.

    Returns:
        Indices of words that a range covers in part (one may come up again), the mask of each, and
        the slices of whole words, as (start, end).

    Raises:
        InputError: a range with ``start < 0`` or ``end < start``.
        BitmapSizeError: a range reaches past the bitmap.
    """
    starts, ends = _merged(words, starts, ends)
    first, last = starts >> 6, (ends - 1) >> 6
    head = FULL << (starts & 63).astype(np.uint64)
    tail = FULL >> (-ends & 63).astype(np.uint64)
    apart = first != last
    head[~apart] &= tail[~apart]
    inside = last - first > 1
    insides = zip((first[inside] + 1).tolist(), last[inside].tolist(), strict=True)
    return np.append(first, last[apart]), np.append(head, tail[apart]), insides


def _merged(words: Words, starts: Pages, ends: Pages) -> tuple[Pages, Pages]:
    """The same pages as ascending ranges that neither overlap nor touch, none empty.

    So the work that follows is bounded by the bitmap, however often an event log repeats itself.
    """
    wrong = np.flatnonzero((starts < 0) | (ends < starts))
    if wrong.size:
        start, end = starts[wrong[0]], ends[wrong[0]]
        raise InputError(f"pages {start} to {end} are no range: it takes 0 <= start <= end")
    some = starts < ends
    starts, ends = starts[some], ends[some]
    check_range(words, 0, int(ends.max(initial=0)))
    if not starts.size:
        return starts, ends
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(ends[order])
    apart = starts[1:] > reach[:-1]
    return starts[np.append(True, apart)], reach[np.append(apart, True)]
