"""Word kernels on bitmaps: translate, merge, count, and turn into ranges of pages and back.

No function reads or writes a bit outside the range it is given, and none allocates memory that
grows with the bitmap, except what it returns. The bitmaps of one call must not overlap in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import InputError
from kvmenc.memory.chunks import (
    FULL,
    WORD,
    Pages,
    Tally,
    Words,
    aligned,
    check_range,
    chunks,
    scratch_for,
    words_for,
)
from kvmenc.memory.runs import edges_of, split_ranges

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "WORD",
    "Pages",
    "Words",
    "and_bits",
    "bits_at",
    "clear_ranges",
    "copy_bits",
    "copy_bits_noting_changes",
    "count",
    "count_split",
    "from_pages",
    "mask_tail",
    "ones",
    "or_bits",
    "ranges",
    "set_ranges",
    "words_for",
    "zeros",
]


def zeros(npages: int) -> Words:
    """A bitmap of ``npages`` bits, all 0."""
    return np.zeros(words_for(npages), WORD)


def ones(npages: int) -> Words:
    """A bitmap of ``npages`` bits, all 1; the bits past them are 0."""
    words = np.full(words_for(npages), FULL, WORD)
    mask_tail(words, npages)
    return words


def from_pages(pages: Pages, npages: int) -> Words:
    """A bitmap of ``npages`` bits with those of ``pages`` set; order and repeats do not matter.

    Raises:
        InputError: a page lies outside ``[0, npages)``.
    """
    _check_pages(pages, npages)
    words = zeros(npages)
    np.bitwise_or.at(words, pages >> 6, np.uint64(1) << (pages & 63).astype(np.uint64))
    return words


def bits_at(words: Words, pages: Pages) -> NDArray[np.bool_]:
    """The bit of each page in ``pages``, as booleans of the same shape.

    Raises:
        InputError: a page lies outside the bitmap.
    """
    _check_pages(pages, words.size * 64)
    holders: Words = words[pages >> 6]
    return (holders >> (pages & 63).astype(np.uint64) & np.uint64(1)).astype(np.bool_)


def mask_tail(words: Words, nbits: int) -> None:
    """Zero every bit from ``nbits`` on."""
    check_range(words, 0, nbits)
    whole, rest = divmod(nbits, 64)
    if rest:
        words[whole] &= _low(rest)
    words[words_for(nbits) :] = 0


def or_bits(dst: Words, dst_bit: int, src: Words, src_bit: int, nbits: int) -> None:
    """OR ``nbits`` bits of ``src`` from ``src_bit`` on into ``dst`` from ``dst_bit`` on.

    Raises:
        BitmapSizeError: the range does not lie inside both bitmaps; nothing was written.
    """
    check_range(dst, dst_bit, nbits)
    for where, bits, _ in aligned(src, src_bit, dst_bit, nbits, scratch_for(nbits)):
        target = dst[where]
        np.bitwise_or(target, bits, out=target)


def and_bits(dst: Words, dst_bit: int, src: Words, src_bit: int, nbits: int) -> None:
    """AND ``nbits`` bits of ``src`` from ``src_bit`` on into ``dst`` from ``dst_bit`` on.

    Raises:
        BitmapSizeError: the range does not lie inside both bitmaps; nothing was written.
    """
    check_range(dst, dst_bit, nbits)
    for where, bits, mask in aligned(src, src_bit, dst_bit, nbits, scratch_for(nbits)):
        target = dst[where]
        np.bitwise_and(target, bits if mask == FULL else bits | ~mask, out=target)


def copy_bits(dst: Words, dst_bit: int, src: Words, src_bit: int, nbits: int) -> None:
    """Copy ``nbits`` bits, zeros too, of ``src`` from ``src_bit`` on to ``dst`` from ``dst_bit``.

    Raises:
        BitmapSizeError: the range does not lie inside both bitmaps; nothing was written.
    """
    check_range(dst, dst_bit, nbits)
    for where, bits, mask in aligned(src, src_bit, dst_bit, nbits, scratch_for(nbits)):
        target = dst[where]
        np.copyto(target, bits if mask == FULL else target & ~mask | bits)


def copy_bits_noting_changes(
    state: Words, dirty: Words, dst_bit: int, src: Words, src_bit: int, nbits: int
) -> int:
    """Copy bits of ``src`` into ``state``, and set in ``dirty`` each bit that this changed.

    One pass does ``dirty |= state ^ src; state := src``. In every chunk ``dirty`` is written before
    ``state``, so that an interrupt between the two repeats a flip but never loses one. A chunk
    without a change, and in a running guest most are, is only read.

    Returns:
        How many bits changed (flips, in pages).

    Raises:
        BitmapSizeError: the range does not lie inside all three bitmaps; nothing was written.
    """
    check_range(state, dst_bit, nbits)
    check_range(dirty, dst_bit, nbits)
    scratch, flips = scratch_for(nbits), Tally(nbits)
    for where, bits, mask in aligned(src, src_bit, dst_bit, nbits, scratch):
        old, noted = state[where], dirty[where]
        changed = np.bitwise_xor(old, bits, out=scratch[1, : bits.size])
        if mask != FULL:
            changed &= mask
        if np.bitwise_or.reduce(changed):
            np.bitwise_or(noted, changed, out=noted)
            np.bitwise_xor(old, changed, out=old)
            flips.add(changed)
    return flips.total()


def count(words: Words, nbits: int) -> int:
    """How many of the first ``nbits`` bits are 1."""
    check_range(words, 0, nbits)
    whole, rest = divmod(nbits, 64)
    tally = Tally(nbits)
    for where in chunks(whole):
        tally.add(words[where])
    if rest:
        tally.add(words[whole : whole + 1] & _low(rest))
    return tally.total()


def count_split(words: Words, by: Words, nbits: int) -> tuple[int, int]:
    """How many of the first ``nbits`` bits are 1 where ``by`` is 1, and how many where it is 0."""
    check_range(words, 0, nbits)
    check_range(by, 0, nbits)
    whole, rest = divmod(nbits, 64)
    scratch, every, inside = scratch_for(nbits)[0], Tally(nbits), Tally(nbits)
    for where in chunks(whole):
        chunk = words[where]
        every.add(chunk)
        inside.add(np.bitwise_and(chunk, by[where], out=scratch[: chunk.size]))
    if rest:
        last = words[whole : whole + 1] & _low(rest)
        every.add(last)
        inside.add(last & by[whole])
    return inside.total(), every.total() - inside.total()


def ranges(words: Words, nbits: int) -> tuple[Pages, Pages]:
    """The runs of ones among the first ``nbits`` bits.

    Returns:
        Starts and ends in pages, ascending; an end is exclusive.
    """
    check_range(words, 0, nbits)
    edges = np.concatenate([np.empty(0, np.int64), *edges_of(words[: words_for(nbits)])])
    edges = edges[: np.searchsorted(edges, nbits)]
    if edges.size % 2:
        edges = np.append(edges, nbits)
    return edges[0::2], edges[1::2]


def set_ranges(words: Words, starts: Pages, ends: Pages) -> None:
    """Set the bits of many ranges, ends exclusive, in any order; they may overlap or be empty.

    Raises:
        InputError: a range with ``start < 0`` or ``end < start``; nothing was written.
        BitmapSizeError: a range reaches past the bitmap; nothing was written.
    """
    edges, masks, insides = split_ranges(words, starts, ends)
    np.bitwise_or.at(words, edges, masks)
    for lo, hi in insides:
        words[lo:hi] = FULL


def clear_ranges(words: Words, starts: Pages, ends: Pages) -> None:
    """Clear the bits of many ranges, ends exclusive, in any order; they may overlap or be empty.

    Raises:
        InputError: a range with ``start < 0`` or ``end < start``; nothing was written.
        BitmapSizeError: a range reaches past the bitmap; nothing was written.
    """
    edges, masks, insides = split_ranges(words, starts, ends)
    np.bitwise_and.at(words, edges, ~masks)
    for lo, hi in insides:
        words[lo:hi] = 0


def _check_pages(pages: Pages, npages: int) -> None:
    if pages.size and (pages.min() < 0 or pages.max() >= npages):
        raise InputError(f"pages {pages.min()} to {pages.max()}: only 0 to {npages - 1} exist")


def _low(nbits: int) -> np.uint64:
    """A word with its lowest ``nbits`` bits set, 1 to 63."""
    return FULL >> np.uint64(64 - nbits)
