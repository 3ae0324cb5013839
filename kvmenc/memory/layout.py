"""Layout: the memslots and RAMBlocks of one guest, checked, joined, and looked up by gfn."""

from __future__ import annotations

from itertools import groupby, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import LayoutError
from kvmenc.memory import words as kernels
from kvmenc.memory.join import join

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from kvmenc.memory.join import Piece
    from kvmenc.memory.slots import MemSlot, RamBlock
    from kvmenc.memory.words import Pages

__all__ = ["Layout"]

# Addresses are 64 bits, in a guest as in its VMM.
ADDRESS_LIMIT = 1 << 64
# Linux v6.12, include/linux/kvm_host.h, KVM_MEM_MAX_NR_PAGES: dirty bitmaps are indexed by an int.
MAX_SLOT_PAGES = (1 << 31) - 1
# Id and address space are two halves of one u32 (virt/kvm/kvm_main.c, __kvm_set_memory_region).
ID_LIMIT = 1 << 16


class Layout:
    """The memslots and RAMBlocks of one guest.

    All pages, of slots, of RAMBlocks and of bitmaps, are of one size, the host's: KVM keeps a dirty
    bit for each of its own pages. What does not fit that size is refused, so that there is never a
    ratio between two.

    Attributes:
        slots: the memslots, ordered by address space and gfn.
        blocks: the RAMBlocks, in the order given.
        page_size: in bytes.

    Raises:
        LayoutError: the slots or RAMBlocks are wrong in themselves, overlap, or do not join. The
            limits on slots are KVM's own.
    """

    def __init__(
        self, slots: Iterable[MemSlot], blocks: Iterable[RamBlock], page_size: int = 4096
    ) -> None:
        if page_size < 4096 or page_size & (page_size - 1):
            raise LayoutError(f"page size {page_size}: it must be a power of two, 4096 or more")
        self.page_size = page_size
        self.slots = tuple(sorted(slots, key=attrgetter("as_id", "base_gfn")))
        self.blocks = tuple(blocks)
        _check_blocks(self.blocks, page_size)
        _check_slots(self.slots, page_size)
        self._pieces = join(self.slots, self.blocks, page_size)

    def pieces_of(self, slot: MemSlot) -> tuple[Piece, ...]:
        """The slot's pages as runs that lie side by side in one RAMBlock, in the slot's order.

        Raises:
            LayoutError: the slot is not part of this layout.
        """
        if slot not in self._pieces:
            raise LayoutError(f"{slot}, base gfn {slot.base_gfn:#x}: not in this layout")
        return self._pieces[slot]

    @property
    def logged_slots(self) -> tuple[MemSlot, ...]:
        """The memslots that have a dirty log."""
        return tuple(slot for slot in self.slots if slot.log_dirty)

    def unlogged_pages(self, block: RamBlock) -> int:
        """How many pages of a RAMBlock lie in no slot that logs dirty pages."""
        pieces = [
            it for slot in self.logged_slots for it in self._pieces[slot] if it.block == block
        ]
        covered = kernels.zeros(block.npages)
        starts = np.array([piece.block_page for piece in pieces], np.int64)
        ends = np.array([piece.block_end for piece in pieces], np.int64)
        kernels.set_ranges(covered, starts, ends)
        return block.npages - kernels.count(covered, block.npages)

    def find(self, gfns: Pages, as_id: int = 0) -> tuple[Pages, Pages]:
        """Which slot each gfn lies in, and at which page of it.

        Returns:
            Indices into ``slots``, -1 for a gfn in none; and pages counted from the slot's first
            (of no meaning where the index is -1). Both have the shape of ``gfns``.
        """
        first = sum(slot.as_id < as_id for slot in self.slots)
        slots = [slot for slot in self.slots if slot.as_id == as_id]
        if not slots:
            return np.full_like(gfns, -1), np.zeros_like(gfns)
        bases = np.array([slot.base_gfn for slot in slots], np.int64)
        ends = np.array([slot.end_gfn for slot in slots], np.int64)
        index = np.searchsorted(bases, gfns, "right") - 1
        inside = (index >= 0) & (gfns < ends[index])
        return np.where(inside, index + first, -1), gfns - bases[index]

    def locate(self, slot: MemSlot, pages: Pages) -> tuple[Pages, Pages]:
        """Which RAMBlock each page of a slot lies in, and at which page of it.

        Returns:
            Indices into ``blocks``, and pages counted from the RAMBlock's first; both have the
            shape of ``pages``.

        Raises:
            LayoutError: the slot is not part of this layout, or has no such page.
        """
        pieces = self.pieces_of(slot)
        if pages.size and (pages.min() < 0 or pages.max() >= slot.npages):
            raise LayoutError(f"{slot}: it has pages 0 to {slot.npages - 1} only")
        starts = np.array([piece.slot_page for piece in pieces], np.int64)
        shifts = np.array([piece.block_page - piece.slot_page for piece in pieces], np.int64)
        blocks = np.array([self.blocks.index(piece.block) for piece in pieces], np.int64)
        index = np.searchsorted(starts, pages, "right") - 1
        return blocks[index], pages + shifts[index]


def _check_blocks(blocks: Sequence[RamBlock], page_size: int) -> None:
    for block in blocks:
        _check_size(block, block.npages, page_size)
        _check_address(block, block.host_addr, block.npages, page_size)
    _check_unique("two RAMBlocks are named", [block.name for block in blocks])
    for low, high in pairwise(sorted(blocks, key=attrgetter("host_addr"))):
        if low.host_addr + low.npages * page_size > high.host_addr:
            raise LayoutError(f"{low} and {high} overlap at host address {high.host_addr:#x}")


def _check_slots(slots: Sequence[MemSlot], page_size: int) -> None:
    for slot in slots:
        _check_slot(slot, page_size)
    _check_unique("two slots are", [str(slot) for slot in slots])
    for _, together in groupby(slots, key=attrgetter("as_id")):
        for low, high in pairwise(together):
            if low.end_gfn > high.base_gfn:
                raise LayoutError(f"{low} and {high} overlap at gfn {high.base_gfn:#x}")


def _check_slot(slot: MemSlot, page_size: int) -> None:
    if not (0 <= slot.slot_id < ID_LIMIT and 0 <= slot.as_id < ID_LIMIT):
        raise LayoutError(f"{slot}: slot id and address space must be below {ID_LIMIT}")
    _check_size(slot, slot.npages, page_size)
    if slot.npages > MAX_SLOT_PAGES:
        raise LayoutError(f"{slot}: {slot.npages} pages; KVM takes at most {MAX_SLOT_PAGES}")
    # KVM refuses guest_phys_addr + memory_size when it wraps, so the very last gfn is out of reach.
    if slot.base_gfn < 0 or slot.end_gfn * page_size >= ADDRESS_LIMIT:
        raise LayoutError(f"{slot}: gfns {slot.base_gfn:#x} to {slot.end_gfn:#x} overflow 64 bits")
    _check_address(slot, slot.userspace_addr, slot.npages, page_size)


def _check_size(what: MemSlot | RamBlock, npages: int, page_size: int) -> None:
    if npages <= 0:
        raise LayoutError(f"{what}: {npages} pages of {page_size} bytes; it needs one at least")


def _check_address(what: MemSlot | RamBlock, addr: int, npages: int, page_size: int) -> None:
    if addr < 0 or addr + npages * page_size > ADDRESS_LIMIT:
        raise LayoutError(f"{what}: {npages} pages at host address {addr:#x} overflow 64 bits")
    if addr % page_size:
        raise LayoutError(f"{what}: host address {addr:#x} is no multiple of {page_size}")


def _check_unique(what: str, names: Sequence[Hashable]) -> None:
    seen: set[Hashable] = set()
    for name in names:
        if name in seen:
            raise LayoutError(f"{what} {name!s}")
        seen.add(name)
