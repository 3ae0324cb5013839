"""A VM's memslots, with the kernel's checks in the kernel's order.

Source: Linux v6.12, virt/kvm/kvm_main.c, check_memory_region_flags, __kvm_set_memory_region and
kvm_prepare_memory_region; arch/x86/kvm/x86.c, kvm_arch_prepare_memory_region.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fakekvm.bits import Words, clear_bits
from fakekvm.decode import (
    KVM_MEM_GUEST_MEMFD,
    KVM_MEM_LOG_DIRTY_PAGES,
    KVM_MEM_READONLY,
    PAGE_BYTES,
    PAGE_SHIFT,
    U16,
    U64,
    MemoryRegion,
)
from fakekvm.errors import oserror
from fakekvm.placement import GuestMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fakekvm.dirtylog import DirtyLog
    from fakekvm.guestmemfd import GuestMemfd

__all__ = ["MemSlots", "Slot", "SlotOwner", "SlotRules"]

_USER_END = (1 << 47) - PAGE_BYTES  # TASK_SIZE_MAX with four-level page tables
_MAX_PAGES = (1 << 31) - 1  # KVM_MEM_MAX_NR_PAGES


@dataclass(slots=True)
class Slot:
    """A memslot.

    Attributes:
        key: slot id | address space << 16.
        memfd: the guest_memfd behind it.
        log: its dirty bitmap; None while logging is off, or in a VM with dirty rings.
        writable: which pages the guest can write without telling a dirty ring, 1 bit a page. A
            slot that is moved starts with none, since its pages are unmapped.
    """

    key: int
    flags: int
    base_gfn: int
    npages: int
    userspace_addr: int
    memfd: GuestMemfd | None = None
    log: DirtyLog | None = None
    writable: Words | None = None

    @property
    def end_gfn(self) -> int:
        """The gfn behind its last."""
        return self.base_gfn + self.npages

    @property
    def is_logged(self) -> bool:
        """Whether writes to it are to be told."""
        return bool(self.flags & KVM_MEM_LOG_DIRTY_PAGES)


@dataclass(frozen=True, slots=True)
class SlotRules:
    """What this VM's memslots may be."""

    user_slots: int
    address_spaces: int
    max_gfn: int
    readonly: bool
    guest_memfd: bool


class SlotOwner(Protocol):
    """What memslots need of their VM."""

    def new_log(self, npages: int) -> DirtyLog | None:
        """A dirty bitmap for a slot whose logging begins; None if the VM uses dirty rings."""

    def memfd_for(self, region: MemoryRegion) -> GuestMemfd | None:
        """The guest_memfd that the request names, fit to be bound; None if it names none."""


class MemSlots:
    """The memslots of a VM.

    Attributes:
        map: what the guest sees of them.
    """

    def __init__(self, rules: SlotRules, owner: SlotOwner) -> None:
        self._rules = rules
        self._owner = owner
        self._slots: dict[int, Slot] = {}
        self.map = GuestMap(())

    def find(self, key: int) -> Slot | None:
        """The slot of this key.

        Raises:
            OSError: EINVAL, if no slot can have it.
        """
        if key >> 16 >= self._rules.address_spaces or key & U16 >= self._rules.user_slots:
            raise oserror(errno.EINVAL)
        return self._slots.get(key)

    @property
    def npages(self) -> int:
        """Pages of all slots."""
        return sum(slot.npages for slot in self._slots.values())

    def protect(self, key: int, pages: NDArray[np.uint64]) -> None:
        """The next write to any of these pages of a slot is to be told to a dirty ring."""
        slot = self._slots.get(key)
        if slot is not None and slot.writable is not None:
            clear_bits(slot.writable, pages[pages < slot.npages].astype(np.int64))

    def set(self, region: MemoryRegion) -> bool:
        """Create, move, change or delete a slot; returns whether one was created.

        Raises:
            OSError: EINVAL, EEXIST, EBADF.
        """
        if not self._is_well_formed(region):
            raise oserror(errno.EINVAL)
        old = self._slots.get(region.slot)
        if not region.memory_size:
            self._delete(old)
        elif old is None or not _is_same(old, region):
            if old is not None and not _may_become(old, region):
                raise oserror(errno.EINVAL)
            self._put(region, old)
        self.map = GuestMap(slot for slot in self._slots.values() if slot.key >> 16 == 0)
        return old is None

    def _is_well_formed(self, region: MemoryRegion) -> bool:
        rules, (slot, flags, gpa, size, address, offset, _) = self._rules, region
        return (
            slot & U16 < rules.user_slots
            and not flags & ~self._valid_flags(flags)
            and not (size | gpa | address) % PAGE_BYTES
            and address + size <= _USER_END
            and (not flags & KVM_MEM_GUEST_MEMFD or _offset_fits(offset, size))
            and slot >> 16 < rules.address_spaces
            and gpa + size <= U64
            and size >> PAGE_SHIFT <= _MAX_PAGES
        )

    def _valid_flags(self, flags: int) -> int:
        if flags & KVM_MEM_GUEST_MEMFD:  # no dirty log of private memory, and no ROM
            return KVM_MEM_GUEST_MEMFD if self._rules.guest_memfd else 0
        return KVM_MEM_LOG_DIRTY_PAGES | (KVM_MEM_READONLY if self._rules.readonly else 0)

    def _delete(self, old: Slot | None) -> None:
        if old is None:
            raise oserror(errno.EINVAL)
        if old.memfd is not None:
            old.memfd.unbind(old.key)
        del self._slots[old.key]

    def _put(self, region: MemoryRegion, old: Slot | None) -> None:
        slot = Slot(
            key=region.slot,
            flags=region.flags,
            base_gfn=region.guest_phys_addr >> PAGE_SHIFT,
            npages=region.memory_size >> PAGE_SHIFT,
            userspace_addr=region.userspace_addr,
        )
        moves = old is None or old.base_gfn != slot.base_gfn
        if moves and self._overlaps(slot):
            raise oserror(errno.EEXIST)
        slot.memfd = self._owner.memfd_for(region)
        if moves and slot.end_gfn - 1 > self._rules.max_gfn:
            raise oserror(errno.EINVAL)
        if slot.memfd is not None:
            slot.memfd.bind(region)
        if slot.is_logged:
            # A log lives on while logging stays on, even when the slot moves.
            slot.log = (old and old.log) or self._owner.new_log(slot.npages)
        self._slots[slot.key] = slot

    def _overlaps(self, new: Slot) -> bool:
        return any(
            slot.key != new.key
            and slot.key >> 16 == new.key >> 16
            and slot.base_gfn < new.end_gfn
            and new.base_gfn < slot.end_gfn
            for slot in self._slots.values()
        )


def _offset_fits(offset: int, size: int) -> bool:
    return not offset % PAGE_BYTES and offset + size <= U64


def _is_same(old: Slot, region: MemoryRegion) -> bool:
    return (
        region.flags == old.flags
        and not region.flags & KVM_MEM_GUEST_MEMFD
        and region.guest_phys_addr >> PAGE_SHIFT == old.base_gfn
        and region.memory_size >> PAGE_SHIFT == old.npages
        and region.userspace_addr == old.userspace_addr
    )


def _may_become(old: Slot, region: MemoryRegion) -> bool:
    """Whether the request leaves alone what cannot change: size, memory, and the kind of slot."""
    fixed = KVM_MEM_READONLY | KVM_MEM_GUEST_MEMFD
    return (
        not region.flags & KVM_MEM_GUEST_MEMFD
        and region.userspace_addr == old.userspace_addr
        and region.memory_size >> PAGE_SHIFT == old.npages
        and not (region.flags ^ old.flags) & fixed
    )
