"""Layout: what it refuses, how it joins, how it looks up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given

from kvmenc.errors import LayoutError
from kvmenc.memory.join import Alias
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from tests.memory.guests import PAGE, Guest, guests

if TYPE_CHECKING:
    from collections.abc import Sequence

BASE = 0x7F00_0000_0000
RAM = RamBlock("ram", 1000, BASE)
DIMM = RamBlock("dimm", 100, BASE + 5000 * PAGE)


def slot(slot_id: int, gfn: int, npages: int, page: int = 0, as_id: int = 0) -> MemSlot:
    """A slot on pages of RAM, from ``page`` on."""
    return MemSlot(slot_id, gfn, npages, BASE + page * PAGE, as_id)


def spans(layout: Layout, of: MemSlot) -> list[tuple[int, str, int, int]]:
    return [(it.slot_page, it.block.name, it.block_page, it.npages) for it in layout.pieces_of(of)]


@pytest.mark.parametrize(
    ("slots", "message"),
    [
        ([slot(0, 0, 0)], "slot 0: 0 pages of 4096 bytes; it needs one at least"),
        ([slot(0, 0, -5)], "slot 0: -5 pages"),
        ([slot(0, 0, 1 << 31)], "slot 0: 2147483648 pages; KVM takes at most 2147483647"),
        ([slot(0, -1, 5)], "slot 0: gfns -0x1 to 0x4 overflow 64 bits"),
        ([slot(0, (1 << 52) - 5, 5)], "slot 0: gfns .* to 0x10000000000000 overflow 64 bits"),
        ([slot(0, 1 << 60, 5)], "overflow 64 bits"),
        (
            [MemSlot(0, 0, 5, BASE + 1)],
            "slot 0: host address 0x7f0000000001 is no multiple of 4096",
        ),
        ([MemSlot(0, 0, 5, (1 << 64) - 4 * PAGE)], "slot 0: 5 pages at host address .* overflow"),
        ([MemSlot(0, 0, 5, -PAGE)], "slot 0: 5 pages at host address -0x1000 overflow"),
        ([slot(-1, 0, 5)], "slot id and address space must be below 65536"),
        ([slot(1 << 16, 0, 5)], "slot id and address space must be below 65536"),
        ([slot(0, 0, 5, as_id=-1)], "slot id and address space must be below 65536"),
        ([slot(0, 0, 5, as_id=1 << 16)], "slot id and address space must be below 65536"),
        ([slot(3, 0, 5), slot(3, 9, 5)], "two slots are slot 3"),
        ([slot(3, 0, 5, as_id=1), slot(3, 9, 5, as_id=1)], "two slots are slot 3 of address"),
        ([slot(1, 0, 10), slot(2, 9, 5)], "slot 1 and slot 2 overlap at gfn 0x9"),
        ([slot(1, 0, 10), slot(2, 3, 1)], "slot 1 and slot 2 overlap at gfn 0x3"),
        ([slot(7, 0, 10, page=995)], "slot 7: its page 5, at 0x7f00003e8000, lies in no RAMBlock"),
        ([MemSlot(7, 0, 1, BASE - PAGE)], "slot 7: its page 0, at 0x7efffffff000, lies in no"),
    ],
)
def test_wrong_slots_are_refused_by_name(slots: Sequence[MemSlot], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        Layout(slots, [RAM])


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([RamBlock("a", 0, BASE)], "RAMBlock 'a': 0 pages"),
        ([RamBlock("a", 5, BASE + 8)], "RAMBlock 'a': host address 0x7f0000000008 is no multiple"),
        ([RamBlock("a", 2, (1 << 64) - PAGE)], "RAMBlock 'a': 2 pages at host address .* overflow"),
        ([RamBlock("a", 5, -PAGE)], "RAMBlock 'a': 5 pages at host address -0x1000 overflow"),
        ([RAM, RamBlock("ram", 5, 0)], "two RAMBlocks are named ram"),
        (
            [RamBlock("b", 5, BASE + 4 * PAGE), RamBlock("a", 5, BASE)],
            "RAMBlock 'a' and RAMBlock 'b' overlap at host address 0x7f0000004000",
        ),
    ],
)
def test_wrong_blocks_are_refused_by_name(blocks: Sequence[RamBlock], message: str) -> None:
    with pytest.raises(LayoutError, match=message):
        Layout([], blocks)


@pytest.mark.parametrize("page_size", [0, 1, 2048, 4097, 12288])
def test_a_page_size_that_no_host_has_is_refused(page_size: int) -> None:
    with pytest.raises(LayoutError, match="must be a power of two, 4096 or more"):
        Layout([], [], page_size)


def test_the_largest_slot_and_the_last_gfn_that_kvm_takes_are_taken() -> None:
    npages = (1 << 31) - 1
    last = MemSlot(0, (1 << 52) - 1 - npages, npages, 0)
    layout = Layout([last], [RamBlock("huge", npages, 0)])
    assert spans(layout, last) == [(0, "huge", 0, npages)]


def test_memory_up_to_the_last_host_byte_is_taken() -> None:
    top = (1 << 64) - 5 * PAGE
    last = MemSlot(0, 0, 5, top)
    assert spans(Layout([last], [RamBlock("top", 5, top)]), last) == [(0, "top", 0, 5)]


def test_the_page_size_counts_in_every_check() -> None:
    size = 65536
    block = RamBlock("ram", 10, size)
    good = MemSlot(0, 0, 7, 4 * size)
    layout = Layout([good], [block], size)
    assert layout.page_size == size
    assert spans(layout, good) == [(0, "ram", 3, 7)]
    with pytest.raises(LayoutError, match="no multiple of 65536"):
        Layout([MemSlot(0, 0, 1, size + 4096)], [block], size)
    with pytest.raises(LayoutError, match="overflow 64 bits"):
        Layout([MemSlot(0, 1 << 48, 1, size)], [block], size)


def test_slots_that_touch_and_the_same_gfns_in_two_address_spaces_are_fine() -> None:
    slots = [slot(0, 0, 10), slot(1, 10, 10), slot(0, 0, 15, as_id=1)]
    layout = Layout(reversed(slots), [RAM])
    assert layout.slots == tuple(slots)


def test_a_slot_may_start_inside_a_block_and_run_on_into_the_next() -> None:
    after = RamBlock("after", 50, BASE + 1000 * PAGE)
    across = slot(0, 0x100, 40, page=987)
    layout = Layout([across], [after, RAM])
    assert spans(layout, across) == [(0, "ram", 987, 13), (13, "after", 0, 27)]


def test_a_slot_of_another_layout_is_refused() -> None:
    with pytest.raises(LayoutError, match="slot 1, base gfn 0x5: not in this layout"):
        Layout([slot(1, 4, 1)], [RAM]).pieces_of(slot(1, 5, 1))


def test_a_page_shown_at_two_gfns_is_an_alias_and_pieces_are_cut_at_its_ends() -> None:
    wide, low, high = slot(0, 0, 100), slot(1, 200, 20, page=10), slot(2, 300, 15, page=25)
    layout = Layout([wide, low, high], [RAM])
    alias = Alias(RAM, 10, 30)
    cut = [(it.slot_page, it.block_page, it.npages, it.alias) for it in layout.pieces_of(wide)]
    assert cut == [(0, 0, 10, None), (10, 10, 30, alias), (40, 40, 60, None)]
    assert [it.alias for it in layout.pieces_of(low)] == [alias]
    assert [it.alias for it in layout.pieces_of(high)] == [alias]


def test_the_same_gfn_in_another_address_space_is_no_alias() -> None:
    both = [slot(0, 50, 30, page=5), slot(0, 60, 10, page=15, as_id=1)]
    layout = Layout(both, [RAM])
    assert [it.alias for each in both for it in layout.pieces_of(each)] == [None, None]


def test_the_same_gfn_by_a_slot_that_begins_elsewhere_is_no_alias() -> None:
    """Seen through the middle of a slot over two RAMBlocks, and through a slot of its own."""
    after = RamBlock("after", 50, BASE + 1000 * PAGE)
    across, own = slot(0, 0x100, 40, page=987), slot(0, 0x100 + 13, 27, page=1000, as_id=1)
    layout = Layout([across, own], [RAM, after])
    assert [it.alias for each in (across, own) for it in layout.pieces_of(each)] == [None] * 3


def test_unlogged_pages_are_those_that_no_logged_slot_covers() -> None:
    rom = MemSlot(2, 500, 100, BASE + 100 * PAGE, readonly=True, log_dirty=False)
    layout = Layout([slot(0, 0, 20), slot(1, 100, 20, page=10), rom], [RAM, DIMM])
    assert layout.unlogged_pages(RAM) == 1000 - 30
    assert layout.unlogged_pages(DIMM) == 100


@given(guests())
def test_pieces_map_every_page_of_every_slot_to_its_host_address(guest: Guest) -> None:
    layout = Layout(guest.slots, guest.blocks)
    for each in guest.slots:
        places: list[tuple[RamBlock, int]] = []
        for it in layout.pieces_of(each):
            assert it.slot_page == len(places)
            places += [(it.block, it.block_page + page) for page in range(it.npages)]
        assert places == [guest.place(each, page) for page in range(each.npages)]


@given(guests())
def test_a_piece_is_an_alias_where_its_pages_have_several_gfns_and_only_there(guest: Guest) -> None:
    layout = Layout(guest.slots, guest.blocks)
    gfns = guest.gfns_of_pages()
    for each in guest.slots:
        for it in layout.pieces_of(each):
            for page in range(it.block_page, it.block_end):
                assert (it.alias is not None) == (len(gfns[it.block.name, page]) > 1)
                if it.alias:
                    assert it.alias.block_page <= page < it.alias.block_page + it.alias.npages


@given(guests())
def test_find_knows_slot_and_page_of_every_gfn(guest: Guest) -> None:
    layout = Layout(guest.slots, guest.blocks)
    gfns = np.arange(max(each.end_gfn for each in guest.slots) + 3)
    for as_id in (0, 1, 2):
        index, pages = layout.find(gfns, as_id)
        for gfn in gfns:
            expected = [
                s for s in guest.slots if s.as_id == as_id and s.base_gfn <= gfn < s.end_gfn
            ]
            found = [layout.slots[index[gfn]]] if index[gfn] >= 0 else []
            assert found == expected
            if found:
                assert pages[gfn] == gfn - found[0].base_gfn


@given(guests())
def test_locate_knows_block_and_page_of_every_page(guest: Guest) -> None:
    layout = Layout(guest.slots, guest.blocks)
    for each in guest.slots:
        index, pages = layout.locate(each, np.arange(each.npages))
        for page in range(each.npages):
            assert (layout.blocks[index[page]], pages[page]) == guest.place(each, page)


@pytest.mark.parametrize("page", [-1, 5])
def test_locate_refuses_a_page_outside_the_slot(page: int) -> None:
    layout = Layout([slot(4, 0, 5)], [RAM])
    with pytest.raises(LayoutError, match="slot 4: it has pages 0 to 4 only"):
        layout.locate(slot(4, 0, 5), np.array([0, page]))


def test_a_slot_key_carries_its_address_space() -> None:
    assert (slot(5, 0, 1).key, slot(5, 0, 1, as_id=1).key) == (5, 0x1_0005)
