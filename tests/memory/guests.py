"""Random guests, and what holds of them found page by page."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import strategies as st

from kvmenc.memory.slots import MemSlot, RamBlock

if TYPE_CHECKING:
    from kvmenc.memory.slots import State

PAGE = 4096

overrides: st.SearchStrategy[State | None] = st.sampled_from(
    [None, None, None, "private", "shared"]
)


@dataclass(frozen=True)
class Guest:
    slots: list[MemSlot]
    blocks: list[RamBlock]

    def place(self, slot: MemSlot, page: int) -> tuple[RamBlock, int]:
        """The RAMBlock and page in it behind a page of a slot."""
        addr = slot.userspace_addr + page * PAGE
        for block in self.blocks:
            if block.host_addr <= addr < block.host_addr + block.npages * PAGE:
                return block, (addr - block.host_addr) // PAGE
        raise AssertionError

    def gfns_of_pages(self) -> dict[tuple[str, int], set[int]]:
        """All gfns of every page of every RAMBlock."""
        gfns: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
        for slot in self.slots:
            for page in range(slot.npages):
                block, block_page = self.place(slot, page)
                gfns[block.name, block_page].add(slot.base_gfn + page)
        return gfns


@st.composite
def guests(draw: st.DrawFn) -> Guest:
    """RAMBlocks with and without gaps; slots on any part of them, with holes, aliased, mirrored."""
    blocks, addr = [], 0x7F00_0000_0000
    for number in range(draw(st.integers(1, 3))):
        addr += draw(st.integers(0, 2)) * PAGE
        block = RamBlock(f"block{number}", draw(st.integers(1, 200)), addr, draw(overrides))
        addr += block.npages * PAGE
        blocks.append(block)
    slots, gfn = [], 0
    for number in range(draw(st.integers(1, 5))):
        slot = draw(_slots_on(blocks, number, gfn + draw(st.integers(0, 70))))
        slots.append(slot)
        gfn = slot.end_gfn
        if draw(st.booleans()):
            slots.append(replace(slot, as_id=1, log_dirty=draw(st.booleans())))
    return Guest(draw(st.permutations(slots)), draw(st.permutations(blocks)))


@st.composite
def _slots_on(draw: st.DrawFn, blocks: list[RamBlock], number: int, gfn: int) -> MemSlot:
    index = draw(st.integers(0, len(blocks) - 1))
    block = blocks[index]
    page = draw(st.integers(0, block.npages - 1))
    room = block.npages - page
    for low, high in pairwise(blocks[index:]):
        if low.host_addr + low.npages * PAGE < high.host_addr:
            break
        room += high.npages
    addr = block.host_addr + page * PAGE
    npages = draw(st.integers(1, room))
    return MemSlot(number, gfn, npages, addr, log_dirty=draw(st.integers(0, 3)) > 0)
