"""Counts of cells and packed bits against a walk over every page."""

from __future__ import annotations

import time
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture import BlockFacts
from kvmenc.memory.words import WORD, bits_at, from_pages, words_for, zeros
from kvmenc.report.page.pyramid import (
    MOST_CELLS,
    STRETCH_PAGES,
    Detail,
    PageBits,
    cell_pages_for,
)

TIB_PAGES = 2**28


def unpacked(data: bytes, npages: int) -> PageBits:
    words = np.frombuffer(zlib.decompress(data, wbits=-zlib.MAX_WBITS), WORD)
    return PageBits(*words.reshape(3, words_for(npages)))


def random_bits(rng: np.random.Generator, npages: int, density: float = 0.5) -> PageBits:
    private, zero, dirty = (
        from_pages(np.flatnonzero(rng.random(npages) < density), npages) for _ in range(3)
    )
    return PageBits(private, zero & ~private, dirty)


def slow_counts(bits: PageBits, npages: int, cell_pages: int) -> list[list[int]]:
    private, zero, dirty = (bits_at(words, np.arange(npages)).tolist() for words in bits)
    cells = [[0, 0, 0, 0] for _ in range(-(-npages // cell_pages))]
    for page in range(npages):
        cell = cells[page // cell_pages]
        cell[0] += private[page]
        cell[1] += zero[page]
        cell[2] += dirty[page] and private[page]
        cell[3] += dirty[page] and not private[page]
    return cells


@given(
    seed=st.integers(0, 2**32),
    npages=st.integers(1, 3000),
    cell_pages=st.sampled_from([64, 128, 1024, 4096]),
    density=st.sampled_from([0.0, 0.01, 0.5, 1.0]),
)
def test_cells_against_a_walk_over_every_page(
    seed: int, npages: int, cell_pages: int, density: float
) -> None:
    bits = random_bits(np.random.default_rng(seed), npages, density)
    assert bits.counts(cell_pages).tolist() == slow_counts(bits, npages, cell_pages)


def test_cells_and_stretches_of_a_block_of_several() -> None:
    npages = 2 * STRETCH_PAGES + 70
    bits = random_bits(np.random.default_rng(1), npages, 0.01)
    cell_pages = STRETCH_PAGES // 4
    counts = bits.counts(cell_pages)
    ends = [min(at + cell_pages, npages) for at in range(0, npages, cell_pages)]
    for row, end in zip(counts.tolist(), ends, strict=True):
        pages = np.arange(end - 1 - (end - 1) % cell_pages, end)
        private, zero, dirty = (bits_at(words, pages) for words in bits)
        expected = [private.sum(), zero.sum(), (dirty & private).sum(), (dirty & ~private).sum()]
        assert row == expected

    detail = Detail(10**9)
    detail.offer(7, bits, npages)
    sizes = [STRETCH_PAGES, STRETCH_PAGES, 70]
    assert [it[:2] for it in detail.kept()] == [(7, 0), (7, 1), (7, 2)]
    parts = [unpacked(it[2], size) for it, size in zip(detail.kept(), sizes, strict=True)]
    for kind in range(3):
        assert np.array_equal(np.concatenate([part[kind] for part in parts]), bits[kind])


@given(npages=st.integers(1, 2**35))
def test_cells_are_few_and_no_larger_than_must_be(npages: int) -> None:
    cell_pages = cell_pages_for(npages)
    assert cell_pages.bit_count() == 1
    assert STRETCH_PAGES % cell_pages == 0 == cell_pages % 64
    assert npages <= MOST_CELLS * cell_pages
    assert cell_pages == 64 or npages > MOST_CELLS * cell_pages // 2


@given(
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=12),
    room_bytes=st.integers(0, 4000),
)
def test_what_takes_most_is_left_out_first_and_the_room_is_kept(
    seeds: list[int], room_bytes: int
) -> None:
    """Each RAMBlock is one stretch, of up to some hundred bytes."""
    npages, detail = 640, Detail(room_bytes)
    drawn = [random_bits(np.random.default_rng(seed), npages, seed / 20) for seed in seeds]
    for index, bits in enumerate(drawn):
        detail.offer(index, bits, npages)
    sizes = [-(-len(bits.packed()) // 3) * 4 for bits in drawn]
    kept = [index for index, _, _ in detail.kept()]
    assert sum(sizes[index] for index in kept) <= room_bytes
    assert detail.stretches == len(seeds)
    assert detail.left_out == len(seeds) - len(kept)
    assert detail.left_out_pages == npages * detail.left_out
    if sum(sizes) <= room_bytes:
        assert kept == list(range(len(seeds)))
    elif room_bytes >= max(sizes):
        assert kept, "one of any size fits"
    assert len(kept) == len(seeds) or sum(sizes) > room_bytes


def test_without_knowing_what_is_private_there_are_no_bits() -> None:
    words = from_pages(np.array([1, 5]), 100)
    mixed, shared = BlockFacts("a", 100, 50, None, 0), BlockFacts("b", 100, 0, None, 0)
    assert PageBits.of(mixed, {"dirty": words}) is None
    assert PageBits.of(shared, {}) is None
    bits = PageBits.of(shared, {"dirty": words})
    assert bits is not None
    assert bits.counts(128).tolist() == [[0, 0, 0, 2]]
    secret = PageBits.of(BlockFacts("c", 100, 100, None, 0), {"dirty": words})
    assert secret is not None
    assert secret.counts(128).tolist() == [[100, 0, 2, 0]]


def test_a_page_that_is_said_to_be_zero_and_private_is_private() -> None:
    words = from_pages(np.array([1, 5]), 100)
    bits = PageBits.of(BlockFacts("a", 100, 2, 2, 0), {"private": words, "zero": words})
    assert bits is not None
    assert bits.counts(128).tolist() == [[2, 0, 0, 0]]


@pytest.mark.alone
def test_cells_of_1_tib_are_counted_within_half_a_second() -> None:
    rng = np.random.default_rng(1)
    words = rng.integers(0, 2**64, TIB_PAGES // 64, np.uint64)
    bits = PageBits(words, ~words, words)
    start = time.perf_counter()
    counts = bits.counts(cell_pages_for(TIB_PAGES))
    assert time.perf_counter() - start < 0.5
    assert counts.shape == (MOST_CELLS, 4)


def test_every_page_that_is_packed_is_told() -> None:
    npages = STRETCH_PAGES + 1
    told: list[float] = []
    Detail(1 << 20, told.append).offer(0, PageBits(*(zeros(npages) for _ in range(3))), npages)
    assert told == [STRETCH_PAGES, npages]
