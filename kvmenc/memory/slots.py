"""MemSlot and RamBlock: guest memory as KVM sees it, and as QEMU's migration does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["MemSlot", "RamBlock", "State"]

State = Literal["private", "shared"]


@dataclass(frozen=True, slots=True)
class MemSlot:
    """One KVM memslot: a run of gfns backed by a run of the VMM's memory.

    Attributes:
        slot_id: KVM's number for it, without the address space.
        base_gfn: its first gfn.
        npages: its size in pages.
        userspace_addr: where its first page lies in the VMM, in bytes.
        as_id: address space; on x86 1 is what the guest sees in system management mode.
        readonly: guest writes exit to the VMM (KVM_MEM_READONLY).
        log_dirty: KVM logs the guest's writes (KVM_MEM_LOG_DIRTY_PAGES).
    """

    slot_id: int
    base_gfn: int
    npages: int
    userspace_addr: int
    as_id: int = 0
    readonly: bool = False
    log_dirty: bool = True

    @property
    def key(self) -> int:
        """The number KVM_GET_DIRTY_LOG wants: id in bits 0..15, address space in 16..31.

        Source: Linux v6.12, Documentation/virt/kvm/api.rst, section 4.8.
        """
        return self.slot_id | self.as_id << 16

    @property
    def end_gfn(self) -> int:
        """The first gfn after it."""
        return self.base_gfn + self.npages

    def __str__(self) -> str:
        where = f" of address space {self.as_id}" if self.as_id else ""
        return f"slot {self.slot_id}{where}"


@dataclass(frozen=True, slots=True)
class RamBlock:
    """One RAMBlock of the VMM: what a migration stream names, and counts offsets in.

    Attributes:
        name: its name in the stream, such as ``pc.ram``.
        npages: its size in pages.
        host_addr: where its first page lies in the VMM, in bytes.
        override: what all its pages are, whatever the kernel says; None to believe the kernel.
    """

    name: str
    npages: int
    host_addr: int
    override: State | None = None

    def __str__(self) -> str:
        return f"RAMBlock {self.name!r}"
