"""The defects of the private/shared bitmap code posted for QEMU in 2019 and 2020; ours has none.

Every test first shows the defect in a model of the old code, then kvmenc's right answer.

=====  ========================================================  ================================
B1     an all-zero word is skipped: shared pages stay private     test_b1
B2     the last word is written whole, into the neighbour         test_b2
B3     unaligned: word i goes to page start + i                   test_b3
B4     unaligned: no shift, no mask                               test_b4
B5     one word written for each dirty-memory block               test_b5
B6     a page's state is looked up as its whole word              test_b6
B7     clearing dirtiness clears the state                        test_b7
B8     slot and section are mixed                                 test_b8 (wrong pages, overrun)
B9     a failed private read kills the guest                      test_b9
B10    the number of words in an int                              none: Python's ints do not
       overflow; numpy's indices here are int64
B11    bytes of a session are not accounted                       none: the stream's statistics,
       not a bitmap
B12    host pages counted, 4 KiB gfns read                        test_b12
B13    a length of -1 allocated as a size_t                       none: sending pages, not a bitmap
=====  ========================================================  ================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc.errors import LayoutError
from kvmenc.memory import words as kernels
from kvmenc.memory.layout import Layout
from kvmenc.memory.maps import DirtyMap, PrivateMap
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.sync import GuestMaps
from tests.memory import models_of_2019 as old
from tests.memory import oracle
from tests.memory.sources import Breaks, Log, Prepared

if TYPE_CHECKING:
    from collections.abc import Callable

    OldCopy = Callable[[list[int], int, list[int], int], None]

FULL = old.FULL
BASE = 0x7F00_0000_0000

all_versions = pytest.mark.parametrize(
    "old_copy", [old.copy_v2, old.copy_v3, old.copy_2020], ids=["v2", "v3", "2020"]
)


def as_int(space: list[int]) -> int:
    return sum(word << 64 * k for k, word in enumerate(space))


def right(space: list[int], start: int, bitmap: list[int], npages: int) -> int:
    return oracle.copied(as_int(space), start, as_int(bitmap), 0, npages)


def ours(space: list[int], start: int, bitmap: list[int], npages: int) -> int:
    words = np.array(space, "<u8")
    kernels.copy_bits(words, start, np.array(bitmap, "<u8"), 0, npages)
    return oracle.to_int(words)


def theirs(
    old_copy: OldCopy,
    space: list[int],
    start: int,
    bitmap: list[int],
    npages: int,
) -> int:
    space = list(space)
    old_copy(space, start, bitmap, npages)
    return as_int(space)


@all_versions
def test_b1_a_word_of_shared_pages_is_copied_like_any_other(
    old_copy: OldCopy,
) -> None:
    before, read = [FULL, FULL], [0, FULL]
    assert theirs(old_copy, before, 0, read, 128) == as_int([FULL, FULL])
    assert ours(before, 0, read, 128) == as_int([0, FULL])


@all_versions
@pytest.mark.parametrize(
    ("neighbour", "tail"), [(0, FULL), (FULL, 0)], ids=["kernel's ones", "leftover zeros"]
)
def test_b2_bits_past_the_range_are_not_believed_and_neighbours_stay(
    old_copy: OldCopy, neighbour: int, tail: int
) -> None:
    """70 pages at page 64; page 134 is the next RAMBlock's."""
    mine = 0b010011
    before, read = [0, 0, neighbour], [5, tail & ~0x3F | mine]
    assert theirs(old_copy, before, 64, read, 70) == as_int([0, *read])
    assert ours(before, 64, read, 70) == as_int([0, 5, neighbour & ~0x3F | mine])


@all_versions
def test_b3_every_word_of_an_unaligned_range_is_written_where_it_belongs(
    old_copy: OldCopy,
) -> None:
    """256 pages at page 13: the old code puts all four words into the first, the last wins."""
    before, read = [0] * 5, [1, 2, 4, 8]
    assert theirs(old_copy, before, 13, read, 256) == as_int([8, 0, 0, 0, 0])
    assert ours(before, 13, read, 256) == sum(bit << 13 + 64 * k for k, bit in enumerate(read))


@pytest.mark.parametrize(
    ("old_copy", "wrong"),
    [
        (old.copy_v2, 0b11),  # the word becomes the value, unshifted and unmasked
        (old.copy_v3, FULL >> 54 << 54 | 0b11),  # 54 bits are masked in, and not shifted
        (old.copy_2020, FULL >> 10 << 10 | 0b11),  # 10 bits are masked in, but not shifted
    ],
    ids=["v2", "v3", "2020"],
)
def test_b4_an_unaligned_range_is_shifted_and_masked_at_both_ends(
    old_copy: OldCopy, wrong: int
) -> None:
    """Ten pages at page 13, the first two private, all around private."""
    before, read = [FULL], [0b11]
    assert theirs(old_copy, before, 13, read, 10) == wrong
    assert ours(before, 13, read, 10) == FULL & ~(0x3FF << 13) | 0b11 << 13


def test_b5_a_long_range_is_set_in_every_word() -> None:
    space, words = [0] * 5, np.zeros(5, "<u8")
    old.set_range_v2(space, 3, 300, FULL)
    assert space == [FULL, 0, 0, 0, 0]
    kernels.set_ranges(words, np.array([3]), np.array([303]))
    assert oracle.to_int(words) == oracle.mask(3, 300)


def test_b6_a_private_neighbour_makes_no_page_private() -> None:
    private = PrivateMap.all_shared(64)
    kernels.set_ranges(private.words, np.array([9]), np.array([10]))
    assert old.is_private([1 << 9], 5)
    assert private.at(np.array([5, 9])).tolist() == [False, True]


def test_b7_clearing_dirtiness_leaves_the_state_alone() -> None:
    dirty, private = [0b1111], [0b0110]
    old.clear_dirty_range(dirty, private, 0, 4)
    assert private == [0]

    maps = GuestMaps(Layout([MemSlot(0, 0, 4, BASE)], [RamBlock("ram", 4, BASE)]))
    maps.sync(Prepared({0: 0b1111}), Prepared({0: 0b0110}))
    maps.clear_dirty()
    taken: DirtyMap = maps.dirty["ram"].take()
    assert (maps.dirty["ram"].pages, taken.pages) == (0, 0)
    assert oracle.to_int(maps.private["ram"].words) == 0b0110


def test_b8_states_go_to_the_pages_they_were_read_for() -> None:
    """The slot's page 3 is the RAMBlock's first, as a section that starts inside its slot."""
    kernel = 0b10110 << 100
    assert old.read_for_section(kernel, old.Span(100, 8), old.Span(103, 5)) == 0b10110
    assert kernel >> 103 & 0b11111 == 0b00010

    slot = MemSlot(0, 100, 8, BASE)
    first, second = RamBlock("first", 3, BASE), RamBlock("second", 5, BASE + 3 * old.PAGE)
    maps = GuestMaps(Layout([slot], [first, second]))
    maps.sync(Prepared(), Prepared({0: 0b10110}))
    assert oracle.to_int(maps.private["first"].words) == 0b110
    assert oracle.to_int(maps.private["second"].words) == 0b00010


def test_b8_nothing_is_written_past_a_buffer_of_the_slots_size() -> None:
    """A section longer than its slot: here it is two slots, or a slot that no RAMBlock backs."""
    with pytest.raises(old.HeapOverrun):
        old.read_for_section(0, old.Span(0, 64), old.Span(0, 65))
    with pytest.raises(LayoutError, match=r"slot 0: its page 64, at .* lies in no RAMBlock"):
        Layout([MemSlot(0, 0, 65, BASE)], [RamBlock("ram", 64, BASE)])


def test_b9_a_failed_private_read_costs_neither_the_guest_nor_a_dirty_bit() -> None:
    dirty, log = [0], [0b101]
    with pytest.raises(old.VmKilled):
        old.sync(dirty, log, -1)

    layout = Layout([MemSlot(0, 0, 4, BASE)], [RamBlock("ram", 4, BASE)])
    maps, taken_log, states = GuestMaps(layout), Log({0: 0b101}), Prepared({0: 0b1111})
    with pytest.raises(OSError, match="broken"):
        maps.sync(taken_log, Breaks(states, 0))
    assert taken_log.bits == {0: 0}
    assert maps.sync(taken_log, states).dirty_private_pages == 2


def test_b12_pages_are_of_one_size_everywhere() -> None:
    """64 KiB host pages, a section of 1 MiB: 256 gfns of 4 KiB, of which the old code reads 16."""
    assert old.pages_asked_for(1 << 20, 65536) == 16

    slot, ram = MemSlot(0, 0, 16, BASE), RamBlock("ram", 16, BASE)
    maps = GuestMaps(Layout([slot], [ram], page_size=65536))
    maps.sync(Prepared(), Prepared({0: 0x8001}))
    assert oracle.to_int(maps.private["ram"].words) == 0x8001
    with pytest.raises(LayoutError, match="is no multiple of 65536"):
        Layout([MemSlot(0, 0, 1, BASE + 4096)], [ram], page_size=65536)


@all_versions
def test_the_old_code_is_right_where_nothing_is_zero_unaligned_or_partial(
    old_copy: OldCopy,
) -> None:
    """So that the models fail for their defects, and not because they are nonsense."""
    before, read = [7, 7, 7, 7], [1, FULL]
    expected = right(before, 64, read, 128)
    assert theirs(old_copy, before, 64, read, 128) == expected
    assert ours(before, 64, read, 128) == expected
