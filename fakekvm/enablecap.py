"""KVM_ENABLE_CAP on a VM.

Source: Linux v6.12, virt/kvm/kvm_main.c, kvm_vm_ioctl_enable_cap_generic and
kvm_vm_ioctl_enable_dirty_log_ring; arch/x86/kvm/x86.c, kvm_vm_ioctl_enable_cap.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from fakekvm import decode, host
from fakekvm.errors import oserror

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fakekvm.vm import Vm

__all__ = ["enable"]


def enable(vm: Vm, wanted: decode.EnableCap) -> int:
    """Enable a capability.

    Raises:
        OSError: EINVAL for one that is unknown, or cannot be enabled like this; E2BIG for a ring.
    """
    enabler = _ENABLERS.get(wanted.cap)
    if enabler is None or not vm.has(wanted.cap):
        raise oserror(errno.EINVAL)
    enabler(vm, wanted)
    return 0


def _manual_protect(vm: Vm, wanted: decode.EnableCap) -> None:
    allowed = decode.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
    if wanted.arg & allowed:
        allowed = vm.has(wanted.cap)
    if wanted.flags or wanted.arg & ~allowed:
        raise oserror(errno.EINVAL)
    vm.manual_protect = wanted.arg


def _dirty_ring(vm: Vm, wanted: decode.EnableCap) -> None:
    """The flags are not looked at, and of the size only the lower 32 bits."""
    size = wanted.arg & decode.U32
    reserved = vm.services.host.ring_reserved_entries * decode.DIRTY_GFN_BYTES
    if size == 0 or size & size - 1 or size < max(reserved, decode.PAGE_BYTES):
        raise oserror(errno.EINVAL)
    if size > vm.has(wanted.cap):
        raise oserror(errno.E2BIG)
    if vm.ring_bytes or vm.vcpus:
        raise oserror(errno.EINVAL)
    vm.ring_bytes = size


def _exit_hypercall(vm: Vm, wanted: decode.EnableCap) -> None:
    if wanted.flags or wanted.arg & ~vm.has(wanted.cap):
        raise oserror(errno.EINVAL)
    vm.hypercall_exits = wanted.arg


_ENABLERS: Mapping[int, Callable[[Vm, decode.EnableCap], None]] = {
    host.CAP_MANUAL_DIRTY_LOG_PROTECT2: _manual_protect,
    host.CAP_DIRTY_LOG_RING: _dirty_ring,
    host.CAP_DIRTY_LOG_RING_ACQ_REL: _dirty_ring,
    host.CAP_EXIT_HYPERCALL: _exit_hypercall,
}
