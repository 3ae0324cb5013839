"""Bitmaps as the kernel lays them out on x86-64: bit i is bit i % 64 of 64-bit word i // 64.

Nothing here loops over bits or words in Python.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Words",
    "clear_bits",
    "clear_range",
    "extract",
    "or_into",
    "set_bits",
    "set_range",
    "test_bits",
    "word_count",
    "zeros",
]

Words = NDArray[np.uint64]

_ALL = (1 << 64) - 1


def word_count(nbits: int) -> int:
    """Words that ``nbits`` bits take."""
    return (nbits + 63) // 64


def zeros(nbits: int) -> Words:
    """A bitmap of ``nbits`` zeros. Pages of it that are never written take no memory."""
    return np.zeros(word_count(nbits), "<u8")


def _masks(bits: NDArray[np.int64]) -> Words:
    return np.left_shift(np.uint64(1), (bits & 63).astype(np.uint64))


def set_bits(words: Words, bits: NDArray[np.int64]) -> None:
    """Set each of ``bits``; repeats are harmless."""
    np.bitwise_or.at(words, bits >> 6, _masks(bits))


def clear_bits(words: Words, bits: NDArray[np.int64]) -> None:
    """Clear each of ``bits``; repeats are harmless."""
    np.bitwise_and.at(words, bits >> 6, ~_masks(bits))


def test_bits(words: Words, bits: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each of ``bits`` is set, shape of ``bits``."""
    present: NDArray[np.bool_] = words[bits >> 6] & _masks(bits) != 0
    return present


def set_range(words: Words, first: int, end: int) -> None:
    """Set bits ``first`` to ``end - 1``."""
    if first >= end:
        return
    head, tail = _edges(first, end)
    low, high = first // 64, (end - 1) // 64
    if low == high:
        words[low] |= np.uint64(head & tail)
        return
    words[low] |= np.uint64(head)
    words[low + 1 : high] = _ALL
    words[high] |= np.uint64(tail)


def clear_range(words: Words, first: int, end: int) -> None:
    """Clear bits ``first`` to ``end - 1``."""
    if first >= end:
        return
    head, tail = _edges(first, end)
    low, high = first // 64, (end - 1) // 64
    if low == high:
        words[low] &= np.uint64(_ALL ^ (head & tail))
        return
    words[low] &= np.uint64(_ALL ^ head)
    words[low + 1 : high] = 0
    words[high] &= np.uint64(_ALL ^ tail)


def _edges(first: int, end: int) -> tuple[int, int]:
    """Masks of the bits from ``first`` up in its word, and of those below ``end`` in its word."""
    return _ALL << first % 64 & _ALL, _ALL >> -end % 64


def extract(words: Words, first: int, nbits: int) -> Words:
    """Bits ``first`` to ``first + nbits - 1`` as a bitmap of their own, zeros behind them."""
    low, shift = divmod(first, 64)
    count = word_count(nbits)
    out = words[low : low + count] >> np.uint64(shift)
    if shift:
        carry = words[low + 1 : low + count + 1]
        out[: carry.size] |= carry << np.uint64(64 - shift)
    clear_range(out, nbits, count * 64)
    return out


def or_into(words: Words, first: int, bits: Words, nbits: int) -> None:
    """``words`` from bit ``first`` on gains the ``nbits`` bits of ``bits``, zeros behind them."""
    low, shift = divmod(first, 64)
    count = word_count(nbits)
    words[low : low + count] |= bits[:count] << np.uint64(shift)
    if shift:
        carry = words[low + 1 : low + count + 1]
        carry |= bits[: carry.size] >> np.uint64(64 - shift)
