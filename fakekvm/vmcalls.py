"""The ioctls of a VM.

Source: Linux v6.12, virt/kvm/kvm_main.c, kvm_vm_ioctl and what it calls, and arch/x86/kvm/x86.c,
kvm_arch_vm_ioctl. The order of checks was tried on Linux 6.18.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np

from fakekvm import decode, enablecap, host, sevcalls, sevdecode
from fakekvm.calls import Call
from fakekvm.errors import oserror
from fakekvm.guestmemfd import GuestMemfd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fakekvm.calls import File
    from fakekvm.dirtylog import DirtyLog
    from fakekvm.vcpu import Vcpu
    from fakekvm.vm import Vm

__all__ = ["VM_CALLS"]

_MAX_TSS_ADDR = (1 << 32) - 3 * decode.PAGE_BYTES
_REGION_V1_FLAGS = decode.KVM_MEM_LOG_DIRTY_PAGES | decode.KVM_MEM_READONLY


def _check_extension(vm: Vm, capability: int) -> int:
    return vm.has(capability)


def _create_vcpu(vm: Vm, vcpu_id: int) -> File:
    if vcpu_id >= vm.has(host.CAP_MAX_VCPU_ID):
        raise oserror(errno.EINVAL)
    with vm.lock:
        if len(vm.vcpus) >= vm.has(host.CAP_MAX_VCPUS):
            raise oserror(errno.EINVAL)
        if vcpu_id in vm.vcpus:
            raise oserror(errno.EEXIST)
        return vm.add_vcpu(vcpu_id)


def _set_region(vm: Vm, region: decode.MemoryRegion) -> int:
    if region.flags & ~_REGION_V1_FLAGS:
        raise oserror(errno.EINVAL)
    return _set_region2(vm, region)


def _set_region2(vm: Vm, region: decode.MemoryRegion) -> int:
    with vm.lock:
        created = vm.slots.set(region)
        if created and vm.enc is not None:
            vm.enc.slot_created(vm.slots.map.end_gfn)
    return 0


def _create_guest_memfd(vm: Vm, wanted: decode.CreateGuestMemfd) -> File:
    size = wanted.size
    if (
        wanted.flags & ~vm.has(host.CAP_GUEST_MEMFD_FLAGS)
        or not 0 < size < 1 << 63
        or size % decode.PAGE_BYTES
    ):
        raise oserror(errno.EINVAL)
    return GuestMemfd(vm.services, vm, size)


def _set_memory_attributes(vm: Vm, wanted: decode.MemoryAttributes) -> int:
    # Checked, and not stored: no ioctl reads them, and guests here do not meet them.
    address, size, attributes, flags = wanted
    fits = size and address + size <= decode.U64 and not (address | size) % decode.PAGE_BYTES
    if flags or attributes & ~vm.has(host.CAP_MEMORY_ATTRIBUTES) or not fits:
        raise oserror(errno.EINVAL)
    return 0


def _only_with_bitmaps(vm: Vm) -> None:
    if vm.ring_bytes:
        raise oserror(errno.ENXIO)


def _log_of(vm: Vm, key: int) -> DirtyLog:
    slot = vm.slots.find(key)
    if slot is None or slot.log is None:
        raise oserror(errno.ENOENT)
    return slot.log


def _get_dirty_log(vm: Vm, request: decode.DirtyLog) -> int:
    with vm.lock:
        _only_with_bitmaps(vm)
        log = _log_of(vm, request.slot)
        log.read(vm.memory, request.dirty_bitmap, clear=not vm.manual_protect)
    return 0


def _clear_dirty_log(vm: Vm, request: decode.ClearDirtyLog) -> int:
    with vm.lock:
        _only_with_bitmaps(vm)
        vm.slots.find(request.slot)  # a bad slot number comes before a bad page, that before ENOENT
        if request.first_page % 64:
            raise oserror(errno.EINVAL)
        _log_of(vm, request.slot).clear(vm.memory, request)
    return 0


def _reset_dirty_rings(vm: Vm, _arg: int) -> int:
    if not vm.ring_bytes:
        raise oserror(errno.EINVAL)
    with vm.lock:
        return sum(_reset_ring(vm, vcpu) for vcpu in vm.vcpus.values())


def _reset_ring(vm: Vm, vcpu: Vcpu) -> int:
    """Pages taken back will be told again when they are written again."""
    if vcpu.ring is None:
        return 0
    keys, pages = vcpu.ring.reset()
    for key in np.unique(keys).tolist():
        vm.slots.protect(key, pages[keys == key])
    return int(pages.size)


def _set_tss_addr(_vm: Vm, address: int) -> int:
    if address > _MAX_TSS_ADDR:
        raise oserror(errno.EINVAL)
    return 0


def _set_identity_map_addr(vm: Vm, arg: int) -> int:
    if vm.vcpus:
        raise oserror(errno.EINVAL)
    vm.memory.read(arg, 8)
    return 0


VM_CALLS: Mapping[int, Call] = {
    decode.KVM_CHECK_EXTENSION: Call(_check_extension),
    decode.KVM_CREATE_VCPU: Call(_create_vcpu),
    decode.KVM_GET_DIRTY_LOG: Call(_get_dirty_log, decode.DIRTY_LOG),
    decode.KVM_SET_USER_MEMORY_REGION: Call(_set_region, decode.MEMORY_REGION),
    decode.KVM_SET_TSS_ADDR: Call(_set_tss_addr),
    decode.KVM_SET_IDENTITY_MAP_ADDR: Call(_set_identity_map_addr),
    decode.KVM_SET_USER_MEMORY_REGION2: Call(
        _set_region2, decode.MEMORY_REGION2, needs=host.CAP_USER_MEMORY2
    ),
    decode.KVM_ENABLE_CAP: Call(enablecap.enable, decode.ENABLE_CAP),
    sevdecode.KVM_MEMORY_ENCRYPT_OP: Call(sevcalls.memory_encrypt_op),
    sevdecode.KVM_MEMORY_ENCRYPT_REG_REGION: Call(sevcalls.register_region, sevdecode.REGION),
    sevdecode.KVM_MEMORY_ENCRYPT_UNREG_REGION: Call(sevcalls.unregister_region, sevdecode.REGION),
    decode.KVM_CLEAR_DIRTY_LOG: Call(
        _clear_dirty_log, decode.CLEAR_DIRTY_LOG, needs=host.CAP_MANUAL_DIRTY_LOG_PROTECT2
    ),
    decode.KVM_RESET_DIRTY_RINGS: Call(_reset_dirty_rings, needs=host.CAP_DIRTY_LOG_RING),
    decode.KVM_SET_MEMORY_ATTRIBUTES: Call(
        _set_memory_attributes, decode.MEMORY_ATTRIBUTES, needs=host.CAP_MEMORY_ATTRIBUTES
    ),
    decode.KVM_CREATE_GUEST_MEMFD: Call(
        _create_guest_memfd, decode.CREATE_GUEST_MEMFD, needs=host.CAP_GUEST_MEMFD
    ),
}
