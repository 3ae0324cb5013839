"""A virtual machine: its state, and who may use it. Its ioctls are in ``vmcalls``."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fakekvm import decode, host
from fakekvm.calls import File, Services
from fakekvm.dirtylog import DirtyLog
from fakekvm.encbitmap import EncBitmap
from fakekvm.errors import oserror
from fakekvm.fairlock import FairLock
from fakekvm.guestmemfd import GuestMemfd
from fakekvm.memslots import MemSlots, SlotRules
from fakekvm.sevvm import SevVm
from fakekvm.vcpu import Vcpu
from fakekvm.vmcalls import VM_CALLS

if TYPE_CHECKING:
    from fakekvm.calls import Caller, Process

__all__ = ["Vm"]


class Vm(File):
    """A VM of the process that created it.

    Attributes:
        owner: that process.
        memory: its memory, and the guest's.
        number: 0 for the first VM of its kernel, then 1, ...
        lock: held while slots or dirty state are read or changed, by ioctls and running vCPUs.
        vcpus: by id. They stay when their descriptors are closed.
        enc: the out-of-tree encryption state, where the host has it.
        sev: what is kept of it as an SEV guest.
        ring_bytes: size of each vCPU's dirty ring; 0: dirty bitmaps are used.
        manual_protect: KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE and KVM_DIRTY_LOG_INITIALLY_SET.
        hypercall_exits: bit n: hypercall n becomes an exit.
        is_dead: KVM has given it up.
    """

    kind = "vm"
    calls = VM_CALLS

    def __init__(self, services: Services, owner: Process, vm_type: int) -> None:
        super().__init__(services)
        self.owner = owner
        self.memory = owner.memory
        self.number = next(services.vm_numbers)
        self.lock = FairLock()
        self.vcpus: dict[int, Vcpu] = {}
        self.ring_bytes = 0
        self.manual_protect = 0
        self.hypercall_exits = 0
        self.is_dead = False
        self._type = vm_type
        self.sev = SevVm(services, owner, vm_type)
        self._open_files = 1  # this one and the vCPUs'
        self.slots = MemSlots(self._slot_rules(), owner=self)
        machine = services.host
        self.enc: EncBitmap | None = None
        if machine.enc_revision is not None:
            self.enc = EncBitmap(machine.enc_revision, sev=machine.sev, find_slot=self._span_of)

    def _slot_rules(self) -> SlotRules:
        max_gpa_bits = self.services.host.max_gpa_bits
        return SlotRules(
            user_slots=self.has(host.CAP_NR_MEMSLOTS),
            address_spaces=self.has(host.CAP_MULTI_ADDRESS_SPACE) or 1,
            max_gfn=(1 << max_gpa_bits - decode.PAGE_SHIFT) - 1,
            readonly=self._type not in (host.VM_SEV_ES, host.VM_SNP),
            guest_memfd=bool(self.has(host.CAP_GUEST_MEMFD)),
        )

    def has(self, capability: int) -> int:
        """The value of a capability for this VM, which can be less than the host's."""
        value = self.services.host.has(capability)
        private_memory = self._type in (host.VM_SW_PROTECTED, host.VM_SNP)
        if capability == host.CAP_MULTI_ADDRESS_SPACE and private_memory:
            return min(value, 1)
        if capability == host.CAP_MEMORY_ATTRIBUTES and not private_memory:
            return 0
        if capability == host.CAP_GUEST_MEMFD and not private_memory:
            # Since v6.18, which has flags for it, any VM can have one.
            return value if self.services.host.has(host.CAP_GUEST_MEMFD_FLAGS) else 0
        return value

    def check_caller(self, caller: Caller) -> None:
        """Only the process that created the VM is served, while the VM is alive.

        Raises:
            OSError: EIO.
        """
        if caller.process is not self.owner or self.is_dead:
            raise oserror(errno.EIO)

    def dispatch(self, request: int, arg: int, caller: Caller) -> int | File:
        """The encryption state's numbers come first: later kernels use some of them otherwise."""
        if self.enc is not None and request in self.enc.requests:
            return self.enc.ioctl(request, arg, self.memory)
        return super().dispatch(request, arg, caller)

    def add_vcpu(self, vcpu_id: int) -> Vcpu:
        """A new vCPU; its descriptor keeps this VM."""
        vcpu = self.vcpus[vcpu_id] = Vcpu(self.services, self, vcpu_id)
        vcpu.load(self.services.scripts.script(self.number, vcpu_id, self.writable_gfns))
        self._open_files += 1
        return vcpu

    def closed(self) -> None:
        """The VM goes when neither it nor any of its vCPUs is open."""
        with self.lock:
            self._open_files -= 1
            if not self._open_files:
                self.vcpus.clear()
                self.sev.destroy()

    def new_log(self, npages: int) -> DirtyLog | None:
        """A dirty bitmap for a slot whose logging begins; None if the VM has dirty rings."""
        if self.ring_bytes:
            return None
        all_dirty = bool(self.manual_protect & decode.KVM_DIRTY_LOG_INITIALLY_SET)
        return DirtyLog(npages, all_dirty=all_dirty)

    def memfd_for(self, region: decode.MemoryRegion) -> GuestMemfd | None:
        """The guest_memfd that the request names; None if it names none.

        Raises:
            OSError: EBADF, no open descriptor; EINVAL, another kind of file, or it does not fit.
        """
        if not region.flags & decode.KVM_MEM_GUEST_MEMFD:
            return None
        file = self.owner.file_of(region.guest_memfd)
        if not isinstance(file, GuestMemfd):
            raise oserror(errno.EINVAL)
        file.check(self, region)
        return file

    def writable_gfns(self) -> dict[int, range]:
        """The gfns of each memslot that the guest can write, by its id, ascending by gfn."""
        slots = self.slots.map.slots
        return {
            s.key: range(s.base_gfn, s.end_gfn)
            for s in slots
            if not s.flags & decode.KVM_MEM_READONLY
        }

    def _span_of(self, key: int) -> tuple[int, int]:
        with self.lock:
            slot = self.slots.find(key)
        if slot is None:
            raise oserror(errno.ENOENT)
        return slot.base_gfn, slot.npages
