"""The kernels that move, merge and count bits, against big ints and against bitarray."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
from bitarray import bitarray
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.errors import BitmapSizeError, InputError
from kvmenc.memory import words as kernels
from tests.memory import oracle

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.memory.words import Words

pytestmark = pytest.mark.usefixtures("two_word_chunks")

MAX_WORDS = 9


@dataclass(frozen=True)
class Move:
    """A range of one bitmap that goes to a range of another."""

    dst: Words
    dst_bit: int
    src: Words
    src_bit: int
    nbits: int


@st.composite
def bitmaps(draw: st.DrawFn, nwords: int) -> Words:
    """Random words, among them (a third each) words of zeros and words of ones."""
    words = np.frombuffer(draw(st.binary(min_size=nwords * 8, max_size=nwords * 8)), "<u8").copy()
    kinds = draw(st.integers(0, 3**nwords - 1))
    for index in range(nwords):
        kinds, kind = divmod(kinds, 3)
        words[index] = (0, 2**64 - 1, words[index])[kind]
    return words


@st.composite
def moves(draw: st.DrawFn) -> Move:
    dst_words, src_words = draw(st.integers(0, MAX_WORDS)), draw(st.integers(0, MAX_WORDS))
    nbits = draw(st.integers(0, 64 * min(dst_words, src_words)))
    return Move(
        draw(bitmaps(dst_words)),
        draw(st.integers(0, 64 * dst_words - nbits)),
        draw(bitmaps(src_words)),
        draw(st.integers(0, 64 * src_words - nbits)),
        nbits,
    )


@given(moves())
def test_or_bits_merges_the_range_and_nothing_else(move: Move) -> None:
    before = oracle.to_int(move.dst)
    kernels.or_bits(move.dst, move.dst_bit, move.src, move.src_bit, move.nbits)
    src = oracle.to_int(move.src)
    expected = before | oracle.moved(src, move.src_bit, move.dst_bit, move.nbits)
    assert oracle.to_int(move.dst) == expected


@given(moves())
def test_and_bits_clears_only_what_the_source_lacks_in_the_range(move: Move) -> None:
    before = oracle.to_int(move.dst)
    kernels.and_bits(move.dst, move.dst_bit, move.src, move.src_bit, move.nbits)
    outside = ~oracle.mask(move.dst_bit, move.nbits)
    src = oracle.moved(oracle.to_int(move.src), move.src_bit, move.dst_bit, move.nbits)
    assert oracle.to_int(move.dst) == before & (src | outside)


@given(moves())
def test_copy_bits_replaces_the_range_and_nothing_else(move: Move) -> None:
    before = oracle.to_int(move.dst)
    kernels.copy_bits(move.dst, move.dst_bit, move.src, move.src_bit, move.nbits)
    src = oracle.to_int(move.src)
    expected = oracle.copied(before, move.dst_bit, src, move.src_bit, move.nbits)
    assert oracle.to_int(move.dst) == expected


@given(moves(), st.data())
def test_copy_bits_noting_changes_copies_marks_and_counts(move: Move, data: st.DataObject) -> None:
    dirty = data.draw(bitmaps(move.dst.size))
    before, dirty_before = oracle.to_int(move.dst), oracle.to_int(dirty)
    flips = kernels.copy_bits_noting_changes(
        move.dst, dirty, move.dst_bit, move.src, move.src_bit, move.nbits
    )
    src = oracle.to_int(move.src)
    now = oracle.copied(before, move.dst_bit, src, move.src_bit, move.nbits)
    assert oracle.to_int(move.dst) == now
    assert oracle.to_int(dirty) == dirty_before | (before ^ now)
    assert flips == (before ^ now).bit_count()


@given(moves())
def test_copy_bits_agrees_with_bitarray(move: Move) -> None:
    dst, src = bitarray(endian="little"), bitarray(endian="little")
    dst.frombytes(move.dst.tobytes())
    src.frombytes(move.src.tobytes())
    dst[move.dst_bit : move.dst_bit + move.nbits] = src[move.src_bit : move.src_bit + move.nbits]
    kernels.copy_bits(move.dst, move.dst_bit, move.src, move.src_bit, move.nbits)
    assert move.dst.tobytes() == dst.tobytes()


@given(moves())
def test_no_kernel_writes_its_source(move: Move) -> None:
    move.src.flags.writeable = False
    dirty = move.dst.copy()
    for kernel in (kernels.or_bits, kernels.and_bits, kernels.copy_bits):
        kernel(move.dst, move.dst_bit, move.src, move.src_bit, move.nbits)
    kernels.copy_bits_noting_changes(
        move.dst, dirty, move.dst_bit, move.src, move.src_bit, move.nbits
    )


STARTS = (0, 1, 13, 63)
LENGTHS = (0, 1, 63, 64, 65, 127, 128, 129, 320, 321, 383)
PATTERNS = (0, 2**64 - 1, 0x5555_5555_5555_5555)


@pytest.mark.parametrize(("dst_bit", "src_bit"), list(product(STARTS, STARTS)))
def test_every_alignment_length_and_neighbour(dst_bit: int, src_bit: int) -> None:
    """Far into one bitmap, so that no word is at its own number by chance."""
    dst_bit += 64 * 70
    src_bit += 64
    for nbits, around, within in product(LENGTHS, PATTERNS, PATTERNS):
        dst, src = np.full(78, around, "<u8"), np.full(8, within, "<u8")
        before = oracle.to_int(dst)
        kernels.copy_bits(dst, dst_bit, src, src_bit, nbits)
        expected = oracle.copied(before, dst_bit, oracle.to_int(src), src_bit, nbits)
        assert oracle.to_int(dst) == expected, (nbits, around, within)


MOVERS: dict[str, Callable[[Words, int, Words, int, int], object]] = {
    "or_bits": kernels.or_bits,
    "and_bits": kernels.and_bits,
    "copy_bits": kernels.copy_bits,
    "copy_bits_noting_changes": lambda dst, dst_bit, src, src_bit, nbits: (
        kernels.copy_bits_noting_changes(dst, dst.copy(), dst_bit, src, src_bit, nbits)
    ),
}


@pytest.mark.parametrize("mover", MOVERS.values(), ids=MOVERS)
@pytest.mark.parametrize(
    ("dst_bit", "src_bit", "nbits", "message"),
    [
        (0, 0, 193, "bits 0 to 193: the bitmap needs 32 bytes, got 24"),
        (65, 0, 128, "bits 65 to 193: the bitmap needs 32 bytes, got 24"),
        (0, 65, 128, "bits 65 to 193: the bitmap needs 32 bytes, got 24"),
        (200, 0, 0, "bits 200 to 200: the bitmap needs 32 bytes, got 24"),
        (-1, 0, 5, "cannot start at -1 and hold 5"),
        (0, -1, 5, "cannot start at -1 and hold 5"),
        (5, 5, -1, "cannot start at 5 and hold -1"),
    ],
)
def test_a_range_outside_a_bitmap_is_refused_and_nothing_written(
    mover: Callable[[Words, int, Words, int, int], object],
    dst_bit: int,
    src_bit: int,
    nbits: int,
    message: str,
) -> None:
    dst, src = kernels.zeros(192), kernels.ones(192)
    kind = InputError if "cannot" in message else BitmapSizeError
    with pytest.raises(kind, match=message):
        mover(dst, dst_bit, src, src_bit, nbits)
    assert not dst.any()


@pytest.mark.parametrize(("state_bits", "dirty_bits"), [(192, 128), (128, 192)])
def test_state_and_dirty_must_both_hold_the_range(state_bits: int, dirty_bits: int) -> None:
    state, dirty = kernels.zeros(state_bits), kernels.zeros(dirty_bits)
    with pytest.raises(BitmapSizeError, match="bits 0 to 192"):
        kernels.copy_bits_noting_changes(state, dirty, 0, kernels.ones(192), 0, 192)
    assert not state.any()
    assert not dirty.any()


def test_what_is_no_bitmap_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="1-d array of <u8, not 1-d uint8"):
        kernels.count(np.zeros(8, np.uint8), 8)
    with pytest.raises(TypeError, match="not 2-d uint64"):
        kernels.count(np.zeros((2, 2), "<u8"), 8)


def test_a_state_is_never_written_before_its_dirty_bit() -> None:
    """Else an interrupt between the two would lose the flip for good."""
    state, dirty, src = kernels.ones(640), kernels.zeros(640), kernels.zeros(640)
    dirty.flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        kernels.copy_bits_noting_changes(state, dirty, 0, src, 0, 640)
    assert oracle.to_int(state) == oracle.mask(0, 640)


def test_a_chunk_without_a_change_is_only_read() -> None:
    state, dirty, src = kernels.ones(640), kernels.zeros(640), kernels.ones(641)
    state.flags.writeable = dirty.flags.writeable = False
    assert kernels.copy_bits_noting_changes(state, dirty, 0, src, 1, 640) == 0


@given(st.integers(0, MAX_WORDS).flatmap(bitmaps), st.data())
def test_count_counts_below_nbits_only(words: Words, data: st.DataObject) -> None:
    nbits = data.draw(st.integers(0, 64 * words.size))
    expected = (oracle.to_int(words) & oracle.mask(0, nbits)).bit_count()
    assert kernels.count(words, nbits) == expected


@given(
    st.integers(0, MAX_WORDS).flatmap(lambda size: st.tuples(bitmaps(size), bitmaps(size))),
    st.data(),
)
def test_count_split_parts_the_ones(pair: tuple[Words, Words], data: st.DataObject) -> None:
    words, by = pair
    nbits = data.draw(st.integers(0, 64 * words.size))
    ones, where = oracle.to_int(words) & oracle.mask(0, nbits), oracle.to_int(by)
    inside, outside = (ones & where).bit_count(), (ones & ~where).bit_count()
    assert kernels.count_split(words, by, nbits) == (inside, outside)


def test_counts_do_not_overflow_over_many_chunks_of_ones() -> None:
    full = kernels.ones(64 * 201 - 5)
    assert kernels.count(full, full.size * 64) == 64 * 201 - 5
    assert kernels.count_split(full, full, 64 * 200) == (64 * 200, 0)


@pytest.mark.parametrize("nbits", [-1, 129])
def test_counting_outside_a_bitmap_is_refused(nbits: int) -> None:
    two, three = kernels.ones(128), kernels.ones(192)
    for count in (
        lambda: kernels.count(two, nbits),
        lambda: kernels.count_split(two, three, nbits),
        lambda: kernels.count_split(three, two, nbits),
    ):
        with pytest.raises(InputError):
            count()


@given(st.integers(0, MAX_WORDS).flatmap(bitmaps), st.data())
def test_mask_tail_zeroes_from_nbits_on(words: Words, data: st.DataObject) -> None:
    nbits = data.draw(st.integers(0, 64 * words.size))
    before = oracle.to_int(words)
    kernels.mask_tail(words, nbits)
    assert oracle.to_int(words) == before & oracle.mask(0, nbits)


def test_mask_tail_beyond_the_bitmap_is_refused() -> None:
    with pytest.raises(BitmapSizeError):
        kernels.mask_tail(kernels.ones(64), 65)


@given(st.integers(0, 64 * MAX_WORDS))
def test_new_bitmaps_are_whole_words_with_a_clean_tail(npages: int) -> None:
    size = -(-npages // 64)
    assert kernels.words_for(npages) == size
    for words, expected in (
        (kernels.zeros(npages), 0),
        (kernels.ones(npages), oracle.mask(0, npages)),
    ):
        assert (words.dtype.str, words.shape) == ("<u8", (size,))
        assert oracle.to_int(words) == expected


@given(st.integers(1, 64 * MAX_WORDS), st.data())
def test_from_pages_sets_those_pages_and_bits_at_finds_them(
    npages: int, data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.integers(0, npages - 1)))
    words = kernels.from_pages(np.array(chosen, np.int64), npages)
    assert oracle.to_int(words) == sum(1 << page for page in set(chosen))
    everywhere = kernels.bits_at(words, np.arange(npages))
    assert everywhere.dtype == bool
    assert set(np.flatnonzero(everywhere)) == set(chosen)


def test_bits_at_keeps_the_shape_it_is_given() -> None:
    pages = np.array([[0, 1], [2, 64]])
    looked_up = kernels.bits_at(kernels.from_pages(np.array([1, 64]), 65), pages)
    assert looked_up.tolist() == [[False, True], [False, True]]


@pytest.mark.parametrize("page", [-1, 128])
def test_a_page_outside_the_bitmap_is_refused(page: int) -> None:
    pages = np.array([0, page])
    with pytest.raises(InputError, match="only 0 to 127 exist"):
        kernels.bits_at(kernels.ones(128), pages)
    with pytest.raises(InputError, match="only 0 to 127 exist"):
        kernels.from_pages(pages, 128)
