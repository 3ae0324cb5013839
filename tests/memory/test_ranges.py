"""Bitmaps to ranges of pages and back, against a loop over pages."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.errors import BitmapSizeError, InputError
from kvmenc.memory import words as kernels
from tests.memory import oracle
from tests.memory.test_words import bitmaps

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.memory.words import Pages, Words

pytestmark = pytest.mark.usefixtures("two_word_chunks")

NPAGES = 64 * 7


def pairs(starts: Pages, ends: Pages) -> list[tuple[int, int]]:
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def arrays(spans: list[tuple[int, int]]) -> tuple[Pages, Pages]:
    starts, ends = np.array(spans, np.int64).reshape(-1, 2).T
    return starts, ends


def some_spans() -> st.SearchStrategy[list[tuple[int, int]]]:
    page = st.integers(0, NPAGES) | st.sampled_from([0, 63, 64, 65, 127, 128, NPAGES])
    return st.lists(st.tuples(page, page).map(lambda two: (min(two), max(two))), max_size=8)


@given(st.integers(0, 9).flatmap(bitmaps), st.data())
def test_ranges_are_the_runs_of_ones_below_nbits(words: Words, data: st.DataObject) -> None:
    nbits = data.draw(st.integers(0, 64 * words.size))
    starts, ends = kernels.ranges(words, nbits)
    assert starts.dtype == ends.dtype == np.dtype(np.int64)
    assert pairs(starts, ends) == oracle.runs(oracle.to_int(words), nbits)


def test_ranges_beyond_the_bitmap_are_refused() -> None:
    with pytest.raises(BitmapSizeError, match="bits 0 to 129"):
        kernels.ranges(kernels.ones(128), 129)


@given(some_spans())
def test_set_ranges_sets_the_pages_of_all_ranges(spans: list[tuple[int, int]]) -> None:
    before = 0x8421_0000_F00F << 100
    words = oracle.to_words(before, 7)
    kernels.set_ranges(words, *arrays(spans))
    expected = before
    for start, end in spans:
        expected |= oracle.mask(start, end - start)
    assert oracle.to_int(words) == expected


@given(some_spans())
def test_clear_ranges_clears_the_pages_of_all_ranges(spans: list[tuple[int, int]]) -> None:
    words = kernels.ones(NPAGES)
    kernels.clear_ranges(words, *arrays(spans))
    expected = oracle.mask(0, NPAGES)
    for start, end in spans:
        expected &= ~oracle.mask(start, end - start)
    assert oracle.to_int(words) == expected


@given(st.integers(1, 9).flatmap(bitmaps))
def test_ranges_of_a_bitmap_build_it_again(words: Words) -> None:
    again = np.zeros_like(words)
    kernels.set_ranges(again, *kernels.ranges(words, 64 * words.size))
    assert (again == words).all()


@pytest.mark.parametrize("change", [kernels.set_ranges, kernels.clear_ranges])
@pytest.mark.parametrize(
    ("span", "kind", "message"),
    [
        ((-1, 5), InputError, "pages -1 to 5 are no range"),
        ((9, 8), InputError, "pages 9 to 8 are no range"),
        ((100, 129), BitmapSizeError, "bits 0 to 129: the bitmap needs 24 bytes, got 16"),
    ],
)
def test_a_wrong_range_is_refused_and_nothing_written(
    change: Callable[[Words, Pages, Pages], None],
    span: tuple[int, int],
    kind: type[Exception],
    message: str,
) -> None:
    words = oracle.to_words(0xF0F0, 2)
    with pytest.raises(kind, match=message):
        change(words, *arrays([(3, 10), span]))
    assert oracle.to_int(words) == 0xF0F0


def test_a_log_of_twenty_thousand_ranges_that_all_overlap_is_quick() -> None:
    """One SEV guest made 19,479 page-state hypercalls at boot; here each names all of 64 GiB."""
    npages, events = 1 << 24, 20_000
    words = kernels.zeros(npages)
    starts = np.arange(events)
    begin = time.perf_counter()
    kernels.set_ranges(words, starts, npages - starts)
    assert time.perf_counter() - begin < 1
    assert (words == kernels.ones(npages)).all()
