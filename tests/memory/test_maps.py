"""DirtyMap and PrivateMap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.errors import BitmapSizeError, InputError
from kvmenc.memory.maps import DirtyMap, PrivateMap
from tests.memory import oracle

NPAGES = 70
some_pages = st.integers(0, (1 << NPAGES) - 1)


def dirty_map(bits: int) -> DirtyMap:
    dirty = DirtyMap(NPAGES)
    dirty.words[:] = oracle.to_words(bits, 2)
    return dirty


def test_a_new_dirty_map_is_clean_and_a_new_private_map_all_private() -> None:
    assert DirtyMap(NPAGES).pages == 0
    assert PrivateMap(NPAGES).pages == NPAGES
    assert DirtyMap.all_dirty(NPAGES).pages == NPAGES
    assert PrivateMap.all_shared(NPAGES).pages == 0


@pytest.mark.parametrize("full", [DirtyMap.all_dirty(NPAGES), PrivateMap(NPAGES)])
def test_full_maps_have_no_bits_past_the_last_page(full: DirtyMap | PrivateMap) -> None:
    assert oracle.to_int(full.words) == oracle.mask(0, NPAGES)


@given(some_pages, some_pages)
def test_merge_is_the_union(ours: int, theirs: int) -> None:
    dirty, other = dirty_map(ours), dirty_map(theirs)
    dirty.merge(other)
    assert oracle.to_int(dirty.words) == ours | theirs
    assert oracle.to_int(other.words) == theirs


def test_maps_of_blocks_of_different_size_do_not_merge() -> None:
    with pytest.raises(BitmapSizeError):
        DirtyMap.all_dirty(200).merge(DirtyMap(70))


def test_take_hands_over_what_is_dirty_and_leaves_nothing() -> None:
    dirty = dirty_map(0b1011)
    taken = dirty.take()
    assert (taken.pages, taken.npages, dirty.pages) == (3, NPAGES, 0)
    dirty.merge(dirty_map(0b100))
    assert (taken.pages, dirty.pages) == (3, 1)


@given(some_pages, some_pages)
def test_split_counts_dirty_pages_by_state(dirty_bits: int, private_bits: int) -> None:
    dirty, private = dirty_map(dirty_bits), PrivateMap(NPAGES)
    private.words[:] = oracle.to_words(private_bits, 2)
    in_private = (dirty_bits & private_bits).bit_count()
    assert dirty.split(private) == (in_private, dirty_bits.bit_count() - in_private)


def test_ranges_and_at_tell_which_pages() -> None:
    dirty = dirty_map(0b110 | 1 << 69)
    starts, ends = dirty.ranges()
    assert (starts.tolist(), ends.tolist()) == ([1, 69], [3, 70])
    assert dirty.at(np.array([0, 1, 69])).tolist() == [False, True, True]


@pytest.mark.parametrize("page", [-1, 128])
def test_a_page_outside_the_words_is_an_error_not_a_wrap_around(page: int) -> None:
    with pytest.raises(InputError):
        DirtyMap(NPAGES).at(np.array([page]))
