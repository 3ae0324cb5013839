"""Which memslots QEMU makes of a FlatView, and which RAMBlock each shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import InputError
from kvmenc.qemu.mtree import find_view
from kvmenc.qemu.text import PAGE_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.qemu.mtree import FlatView, Range
    from kvmenc.qemu.ramblock import BlockLine

__all__ = ["SlotRange", "slot_ranges"]

# The number that KVM's x86 gives each; the second is what the guest sees in system management mode
# (QEMU v10.0, target/i386/kvm/kvm.c, register_smram_listener).
_ADDRESS_SPACES = ("memory", "KVM-SMRAM")


@dataclass(frozen=True, slots=True)
class SlotRange:
    """A range of guest memory for which KVM has a slot.

    Attributes:
        as_id: address space.
        base_gfn: first gfn.
        npages: size.
        block: name of the RAMBlock.
        block_page: page of it that lies at the first gfn.
        readonly: ROM to KVM too.
    """

    as_id: int
    base_gfn: int
    npages: int
    block: str
    block_page: int
    readonly: bool


def slot_ranges(
    views: Sequence[FlatView], blocks: Sequence[BlockLine]
) -> tuple[list[SlotRange], list[str]]:
    """The slots, by address space and gfn, and a line for each range that is none of them.

    Raises:
        InputError: a range's RAMBlock is not there, too small, or one of several of that name.
    """
    found: list[SlotRange] = []
    left_out: list[str] = []
    for as_id, name in enumerate(_ADDRESS_SPACES):
        view = find_view(views, name)
        memory = _memory(view) if view else []
        writable = {it.name for it in memory if it.kind == "ram"}
        for it in memory:
            block = _block_of(it, blocks)
            if block:
                found += _slot_range(as_id, it, block, it.name in writable)
            else:
                left_out.append(
                    f"gfn {it.start // PAGE_SIZE:#x}: a device's own memory ({it.name}), left out; "
                    "it has no RAMBlock by that name and is never migrated"
                )
    return found, left_out


def _memory(view: FlatView) -> list[Range]:
    """Ranges with a slot: those that QEMU marks, or by their kind where it marks none."""
    memory = [it for it in view.ranges if it.kind != "i/o"]
    return [it for it in memory if it.in_kvm] or memory


def _block_of(it: Range, blocks: Sequence[BlockLine]) -> BlockLine | None:
    """A RAMBlock is called as its region is, after the path of the device that it belongs to."""
    named = [b for b in blocks if b.name == it.name] or [
        b for b in blocks if b.name.endswith(f"/{it.name}")
    ]
    if len(named) > 1:
        raise InputError(
            f"address {it.start:#x}: {len(named)} RAMBlocks are called {it.name!r}; take --trace "
            "with the `info ramblock` of QEMU 8.0 or newer"
        )
    if not named and it.kind != "ramd":
        raise InputError(
            f"address {it.start:#x}: no RAMBlock is called {it.name!r}; mtree and ramblock must be "
            "whole and of the same QEMU"
        )
    if named and it.offset + it.end - it.start > named[0].used_bytes:
        raise InputError(f"address {it.start:#x}: more than RAMBlock {it.name!r} holds")
    return named[0] if named else None


def _slot_range(as_id: int, it: Range, block: BlockLine, writable: bool) -> Iterator[SlotRange]:
    """KVM's slot: whole pages only (QEMU v10.0, accel/kvm/kvm-all.c, kvm_align_section).

    RAM that the chipset write-protects is printed as ``rom``, but KVM has no part in that: QEMU
    asks whether the region is ROM, not the range (kvm_mem_flags). A region that is ROM is
    nowhere ``ram``.
    """
    skipped = -it.start % PAGE_SIZE
    npages = (it.end - it.start - skipped) // PAGE_SIZE
    if (it.offset + skipped) % PAGE_SIZE:
        raise InputError(f"address {it.start:#x}: its offset in {it.name!r} is not on a page")
    if npages > 0:
        is_rom = it.kind in {"rom", "romd"} and not writable
        yield SlotRange(
            as_id=as_id,
            base_gfn=(it.start + skipped) // PAGE_SIZE,
            npages=npages,
            block=block.name,
            block_page=(it.offset + skipped) // PAGE_SIZE,
            readonly=is_rom if block.readonly is None else block.readonly or it.kind == "romd",
        )
