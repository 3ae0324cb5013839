"""Every bitmap function against Python's big integers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fakekvm import bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

NBITS = 5 * 64
MAPS = st.integers(0, (1 << NBITS) - 1)
BITS = st.integers(0, NBITS - 1)
RANGES = st.tuples(st.integers(0, NBITS), st.integers(0, NBITS)).map(sorted)


def words_of(value: int, nwords: int = NBITS // 64) -> NDArray[np.uint64]:
    return np.frombuffer(value.to_bytes(8 * nwords, "little"), "<u8").copy()


def value_of(words: NDArray[np.uint64]) -> int:
    return int.from_bytes(words.tobytes(), "little")


def mask(first: int, end: int) -> int:
    return (1 << end) - (1 << first)


@given(MAPS, RANGES)
def test_set_range(value: int, span: list[int]) -> None:
    words = words_of(value)
    bits.set_range(words, *span)
    assert value_of(words) == value | mask(*span)


@given(MAPS, RANGES)
def test_clear_range(value: int, span: list[int]) -> None:
    words = words_of(value)
    bits.clear_range(words, *span)
    assert value_of(words) == value & ~mask(*span)


@given(MAPS, st.lists(BITS))
def test_set_clear_and_test_bits(value: int, chosen: list[int]) -> None:
    at = np.array(chosen, np.int64)
    words = words_of(value)
    assert bits.test_bits(words, at).tolist() == [bool(value >> bit & 1) for bit in chosen]
    picked = sum(1 << bit for bit in set(chosen))
    bits.set_bits(words, at)
    assert value_of(words) == value | picked
    bits.clear_bits(words, at)
    assert value_of(words) == value & ~picked


@given(MAPS, RANGES)
def test_extract(value: int, span: list[int]) -> None:
    first, end = span
    out = bits.extract(words_of(value), first, end - first)
    assert out.size == bits.word_count(end - first)
    assert value_of(out) == (value & mask(*span)) >> first


@given(MAPS, RANGES, st.data())
def test_or_into(value: int, span: list[int], data: st.DataObject) -> None:
    first, end = span
    added = data.draw(st.integers(0, (1 << (end - first)) - 1))
    words = words_of(value)
    bits.or_into(words, first, words_of(added, bits.word_count(end - first)), end - first)
    assert value_of(words) == value | added << first
