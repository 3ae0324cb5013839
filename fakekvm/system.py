"""/dev/kvm itself. Source: Linux v6.12, virt/kvm/kvm_main.c, kvm_dev_ioctl."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, ClassVar

from fakekvm import decode
from fakekvm.calls import Call, File
from fakekvm.cpuid import get_supported_cpuid
from fakekvm.errors import oserror
from fakekvm.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fakekvm.calls import Caller, Process

__all__ = ["System"]

_API_VERSION = 12
_VCPU_MMAP_BYTES = 3 * decode.PAGE_BYTES  # kvm_run, port data, coalesced MMIO


class System(File):
    """What open("/dev/kvm") gives. Unlike a VM it serves any process."""

    kind = "system"
    unknown_errno = errno.EINVAL

    def dispatch(self, request: int, arg: int, caller: Caller) -> int | File:
        """As any file; but here it matters who calls."""
        call = self.calls_of_a_process.get(request)
        return call(self, arg, caller.process) if call else super().dispatch(request, arg, caller)

    def _create_vm(self, vm_type: int, owner: Process) -> File:
        if not self.services.host.allows_vm_type(vm_type):
            raise oserror(errno.EINVAL)
        return Vm(self.services, owner, vm_type)

    def _get_supported_cpuid(self, arg: int, process: Process) -> int:
        return get_supported_cpuid(self.services.host, process.memory, arg)

    def _get_api_version(self, arg: int) -> int:
        return _without_argument(arg, _API_VERSION)

    def _get_vcpu_mmap_size(self, arg: int) -> int:
        return _without_argument(arg, _VCPU_MMAP_BYTES)

    def _check_extension(self, capability: int) -> int:
        return self.services.host.has(capability)

    calls: ClassVar[Mapping[int, Call]] = {
        decode.KVM_GET_API_VERSION: Call(_get_api_version),
        decode.KVM_CHECK_EXTENSION: Call(_check_extension),
        decode.KVM_GET_VCPU_MMAP_SIZE: Call(_get_vcpu_mmap_size),
    }
    calls_of_a_process: ClassVar[Mapping[int, Callable[[System, int, Process], int | File]]] = {
        decode.KVM_CREATE_VM: _create_vm,
        decode.KVM_GET_SUPPORTED_CPUID: _get_supported_cpuid,
    }


def _without_argument(arg: int, value: int) -> int:
    if arg:
        raise oserror(errno.EINVAL)
    return value
