"""How much memory a call asks for, where that is for the caller to say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fakekvm import decode, sevdecode
from fakekvm.bits import word_count
from fakekvm.revisions import REVISIONS, Form
from fakekvm.vm import Vm

if TYPE_CHECKING:
    from fakekvm.calls import File
    from fakekvm.processmemory import ProcessMemory

__all__ = ["wanted_bytes"]


def wanted_bytes(file: File, request: int, arg: int, memory: ProcessMemory) -> int:
    """Bytes that a call on a VM asks for, or 0.

    That is the kernel's buffer for an encryption bitmap or list; all memory of the guest, once the
    memslot is created; all that is pinned, once the region is; the size of a guest_memfd.
    """
    if not isinstance(file, Vm):
        return 0
    try:
        return _wanted(file, request, arg, memory)
    except OSError:
        return 0  # the argument cannot be read: the call itself will say so


def _wanted(vm: Vm, request: int, arg: int, memory: ProcessMemory) -> int:
    if vm.enc is not None and request in vm.enc.requests:
        return _of_encryption_state(vm, request, arg, memory)
    if request == decode.KVM_SET_USER_MEMORY_REGION:
        return _of_slots(vm, decode.MEMORY_REGION.read(memory, arg))
    if request == decode.KVM_SET_USER_MEMORY_REGION2:
        return _of_slots(vm, decode.MEMORY_REGION2.read(memory, arg))
    if request == decode.KVM_CREATE_GUEST_MEMFD:
        return decode.CREATE_GUEST_MEMFD.read(memory, arg).size
    if request == sevdecode.KVM_MEMORY_ENCRYPT_REG_REGION:
        return vm.sev.pinned_bytes + sevdecode.REGION.read(memory, arg).size
    return 0


def _of_encryption_state(vm: Vm, request: int, arg: int, memory: ProcessMemory) -> int:
    revision = REVISIONS[vm.services.host.enc_revision or ""]
    if request == revision.reset:
        return 0
    if revision.form is Form.LIST:
        return decode.SHARED_PAGES_LIST.read(memory, arg).size
    if revision.form is Form.SLOT_BITMAP:
        slot = vm.slots.find(decode.UNENCRYPTED_BITMAP.read(memory, arg).slot)
        return word_count(slot.npages) * 8 if slot else 0
    return word_count(decode.PAGE_ENC_BITMAP.read(memory, arg).num_pages) * 8


def _of_slots(vm: Vm, region: decode.MemoryRegion) -> int:
    with vm.lock:
        if not region.memory_size or vm.slots.find(region.slot) is not None:
            return 0  # deleted, or changed: no new memory
        return vm.slots.npages * decode.PAGE_BYTES + region.memory_size
