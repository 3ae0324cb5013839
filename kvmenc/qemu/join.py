"""From what QEMU says to a Layout: memslots and RAMBlocks joined by host address."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import InputError
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.qemu.overrides import override_of
from kvmenc.qemu.ranges import slot_ranges
from kvmenc.qemu.text import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvmenc.qemu.mtree import FlatView
    from kvmenc.qemu.ramblock import BlockLine
    from kvmenc.qemu.ranges import SlotRange
    from kvmenc.qemu.trace import TracedSlot

    HostAddress = Callable[[int], int]
    """From a guest physical address to where it lies in QEMU."""

__all__ = ["QemuLayout", "from_mtree", "from_trace"]

# Of a page whose true address nobody told; no process has such addresses, so they are never taken
# for true ones and never overlap them.
MADE_UP = 1 << 62


@dataclass(frozen=True, slots=True)
class QemuLayout:
    """The memory of a guest of QEMU.

    Attributes:
        layout: memslots, RAMBlocks and their join.
        ids_known: slot ids and dirty logs are KVM's; else ids merely count the slots up, and
            ``log_dirty`` means that a migration would log the slot.
        guest_memfd: slots whose private pages lie in a guest_memfd.
        left_out: what has no place in the layout, a line each.
    """

    layout: Layout
    ids_known: bool
    guest_memfd: tuple[MemSlot, ...]
    left_out: tuple[str, ...]

    def host_addr(self, addr: int) -> int | None:
        """An address of the layout, None if it is made up."""
        return None if addr >= MADE_UP else addr


def from_mtree(
    views: Sequence[FlatView],
    blocks: Sequence[BlockLine],
    host_addr_of: HostAddress | None = None,
) -> QemuLayout:
    """What slots KVM has by the FlatViews; their ids are not told there.

    Args:
        views: of ``info mtree -f``.
        blocks: of ``info ramblock``.
        host_addr_of: asked for RAMBlocks whose address is not printed; without it, and for blocks
            that the guest does not see now, an address is made up from the block's ``ram_addr``.

    Raises:
        InputError: the two texts do not go together.
        LayoutError: the slots or RAMBlocks are wrong in themselves.
    """
    ranges, left_out = slot_ranges(views, blocks)
    ram_blocks = _ram_blocks(blocks, ranges, host_addr_of)
    address = {block.name: block.host_addr for block in ram_blocks}
    slots = [
        MemSlot(
            slot_id=number,
            base_gfn=it.base_gfn,
            npages=it.npages,
            userspace_addr=address[it.block] + it.block_page * PAGE_SIZE,
            as_id=it.as_id,
            readonly=it.readonly,
        )
        for number, it in enumerate(ranges)
    ]
    return QemuLayout(Layout(slots, ram_blocks, PAGE_SIZE), False, (), tuple(left_out))


def from_trace(
    traced: Sequence[TracedSlot],
    blocks: Sequence[BlockLine],
    views: Sequence[FlatView] | None = None,
) -> QemuLayout:
    """KVM's own slots, as QEMU set them.

    Args:
        traced: the slots.
        blocks: of ``info ramblock``.
        views: of ``info mtree -f``; tells where RAMBlocks lie if ``blocks`` does not.

    Raises:
        InputError: the texts do not go together, or do not tell where RAMBlocks lie.
        LayoutError: the slots or RAMBlocks are wrong in themselves.
    """
    if views is None and any(block.host_addr is None for block in blocks):
        raise InputError(
            "this `info ramblock` has no host addresses (QEMU before 8.0): add --mtree with the "
            "`info mtree -f` of the same moment"
        )
    ranges = slot_ranges(views, blocks)[0] if views is not None else []
    ram_blocks = _ram_blocks(blocks, ranges, lambda gpa: _traced_addr(traced, gpa))
    inside = [it for it in traced if any(_holds(block, it.slot) for block in ram_blocks)]
    if traced and not inside:
        raise InputError("no slot of the trace lies in a RAMBlock: the texts are of two QEMUs")
    layout = Layout([it.slot for it in inside], ram_blocks, PAGE_SIZE)
    _check_same_blocks(layout, ranges)
    memfd = tuple(it.slot for it in inside if it.guest_memfd)
    placed = set(layout.slots)
    outside = [it.slot for it in traced if it.slot not in placed]
    return QemuLayout(layout, True, memfd, tuple(_left_out(slot) for slot in outside))


def _ram_blocks(
    blocks: Sequence[BlockLine], ranges: Sequence[SlotRange], host_addr_of: HostAddress | None
) -> list[RamBlock]:
    """The RAMBlocks, in the order given, each at its address, found or made up."""
    first = {it.block: it for it in reversed(ranges)}
    found = []
    for block in blocks:
        addr = block.host_addr
        if addr is None and host_addr_of and (seen := first.get(block.name)):
            addr = host_addr_of(seen.base_gfn * PAGE_SIZE) - seen.block_page * PAGE_SIZE
        if addr is None:
            addr = MADE_UP + block.ram_addr
        found.append(RamBlock(block.name, block.npages, addr, override_of(block.name)))
    return found


def _traced_addr(traced: Sequence[TracedSlot], gpa: int) -> int:
    gfn = gpa // PAGE_SIZE
    for slot in (it.slot for it in traced if it.slot.as_id == 0):
        if slot.base_gfn <= gfn < slot.end_gfn:
            return slot.userspace_addr + (gfn - slot.base_gfn) * PAGE_SIZE
    raise InputError(f"gfn {gfn:#x} is memory by the mtree, but the trace has no slot there")


def _holds(block: RamBlock, slot: MemSlot) -> bool:
    return 0 <= slot.userspace_addr - block.host_addr < block.npages * PAGE_SIZE


def _left_out(slot: MemSlot) -> str:
    return (
        f"{slot}, gfn {slot.base_gfn:#x}: in no RAMBlock with a name, left out; a device's memory "
        "is mapped so, and never migrated"
    )


def _check_same_blocks(layout: Layout, ranges: Sequence[SlotRange]) -> None:
    """Each range of the mtree begins in the block, and at the page of it, that the trace says."""
    pieces = [piece for slot in layout.slots for piece in layout.pieces_of(slot)]
    places = {(it.slot.as_id, it.slot.base_gfn + it.slot_page): it for it in pieces}
    for it in ranges:
        piece = places.get((it.as_id, it.base_gfn))
        if piece is None or (piece.block.name, piece.block_page) != (it.block, it.block_page):
            raise InputError(
                f"gfn {it.base_gfn:#x}: the trace and the mtree do not say the same; they must be "
                "of the same QEMU and moment"
            )
