"""What the word kernels stand on: the word, and the walk over a range in cache-sized chunks.

A bitmap is a one-dimensional array of ``<u8`` words; bit ``i`` is page ``i``, least significant
bit first, whatever the host's byte order. It is what KVM writes: whole 64-bit words (Linux v6.12,
include/linux/kvm_host.h, kvm_dirty_bitmap_bytes), so that there are bits past the last page, and
they mean nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kvmenc.errors import BitmapSizeError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "FULL",
    "WORD",
    "Pages",
    "Tally",
    "Words",
    "aligned",
    "check_range",
    "chunks",
    "scratch_for",
    "words_for",
]

Words = NDArray[np.uint64]
Pages = NDArray[np.int64]

WORD = np.dtype("<u8")
FULL = np.uint64(0xFFFF_FFFF_FFFF_FFFF)

# 1 MiB an array: of all sizes from 8 KiB to 2 MiB the quickest for a sync of 1 TiB. Below, calling
# numpy counts (some 10 us for all the calls of one chunk); above, the caches are too small.
CHUNK_WORDS = 131072


def words_for(npages: int) -> int:
    """How many 64-bit words hold ``npages`` bits: ``ALIGN(npages, 64) / 64``."""
    return (npages + 63) // 64


def chunks(nwords: int) -> Iterator[slice]:
    """The words ``0..nwords`` as slices of at most a chunk."""
    for lo in range(0, nwords, CHUNK_WORDS):
        yield slice(lo, min(lo + CHUNK_WORDS, nwords))


def scratch_for(nbits: int) -> Words:
    """Room for two chunks, or for twice ``nbits`` if that is less; shape ``(2, words)``."""
    return np.empty((2, _chunk_for(nbits)), WORD)


class Tally:
    """Counts ones, a chunk of words at a time.

    The counts of three words, 64 at most each, fit a byte together. Adding them up in bytes first
    takes half the time of summing up every chunk for itself.
    """

    def __init__(self, nbits: int) -> None:
        self._counts, self._sums = np.zeros((2, _chunk_for(nbits)), np.uint8)
        self._room = 3
        self._total = 0

    def add(self, words: Words) -> None:
        """Count the ones of at most a chunk, and of no more words than ``nbits`` needs."""
        counts = np.bitwise_count(words, out=self._counts[: words.size])
        sums = self._sums[: words.size]
        np.add(sums, counts, out=sums)
        self._room -= 1
        if not self._room:
            self._total = self.total()
            self._sums[:] = 0
            self._room = 3

    def total(self) -> int:
        """All ones counted so far."""
        return self._total + int(np.add.reduce(self._sums, dtype=np.uint32))


def check_range(words: Words, bit: int, nbits: int) -> None:
    """Refuse what is no bitmap, and a range of bits that is not wholly inside it.

    Raises:
        TypeError: not a one-dimensional array of ``<u8``.
        InputError: the range's start or length is negative.
        BitmapSizeError: the range reaches past the end.
    """
    if words.dtype != WORD or words.ndim != 1:
        raise TypeError(f"a bitmap is a 1-d array of {WORD.str}, not {words.ndim}-d {words.dtype}")
    if bit < 0 or nbits < 0:
        raise InputError(f"a range of bits cannot start at {bit} and hold {nbits}")
    if bit + nbits > words.size * 64:
        needed_bytes = words_for(bit + nbits) * WORD.itemsize
        raise BitmapSizeError(f"bits {bit} to {bit + nbits}", needed_bytes, words.nbytes)


def aligned(
    src: Words, src_bit: int, dst_bit: int, nbits: int, scratch: Words
) -> Iterator[tuple[slice, Words, np.uint64]]:
    """Cut a copy of ``nbits`` bits, from ``src_bit`` to ``dst_bit``, into the destination's words.

    Yields which words of the destination, the source's bits shifted to lie as they do there, and a
    mask of the bits meant: FULL for whole words, less for the partial word at either end. Bits
    outside the mask are 0. The array is valid until the next item; it may be a view of ``src`` or
    of ``scratch[0]``, while ``scratch[1]`` is the caller's to use.

    Raises:
        BitmapSizeError: the range does not lie inside ``src``; raised before anything is yielded.
    """
    check_range(src, src_bit, nbits)
    head = min(-dst_bit % 64, nbits)
    body, tail = divmod(nbits - head, 64)
    if head:
        yield _partial(src, src_bit, dst_bit, head)
    first_dst = (dst_bit + head) // 64
    first_src, shift = divmod(src_bit + head, 64)
    for where, bits in _shifted(src[first_src:], shift, body, scratch):
        yield slice(first_dst + where.start, first_dst + where.stop), bits, FULL
    if tail:
        yield _partial(src, src_bit + nbits - tail, dst_bit + nbits - tail, tail)


def _chunk_for(nbits: int) -> int:
    """Words in the largest chunk of a bitmap."""
    return min(words_for(nbits), CHUNK_WORDS)


def _shifted(src: Words, shift: int, nwords: int, scratch: Words) -> Iterator[tuple[slice, Words]]:
    """The first ``nwords`` words of the bitmap that begins ``shift`` bits after ``src`` does."""
    if not shift:
        yield from ((where, src[where]) for where in chunks(nwords))
        return
    # Arrays without dimensions: numpy would make one of a plain int at every call.
    down, up = np.array(shift, WORD), np.array(64 - shift, WORD)
    low, high = scratch
    for where in chunks(nwords):
        lo, hi = where.start, where.stop
        bits = np.right_shift(src[lo:hi], down, out=low[: hi - lo])
        carried = np.left_shift(src[lo + 1 : hi + 1], up, out=high[: hi - lo])
        yield where, np.bitwise_or(bits, carried, out=bits)


def _partial(src: Words, src_bit: int, dst_bit: int, nbits: int) -> tuple[slice, Words, np.uint64]:
    """``nbits`` bits that lie in one destination word, as :func:`aligned` yields them."""
    word, shift = divmod(src_bit, 64)
    bits = int(src[word]) >> shift
    if shift + nbits > 64:
        bits |= int(src[word + 1]) << (64 - shift)
    place, mask = dst_bit % 64, (1 << nbits) - 1
    where = slice(dst_bit // 64, dst_bit // 64 + 1)
    return where, np.array([(bits & mask) << place], WORD), np.uint64(mask << place)
