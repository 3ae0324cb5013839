"""A vCPU.

Source: Linux v6.12, virt/kvm/kvm_main.c, kvm_vcpu_ioctl; arch/x86/kvm/x86.c,
kvm_arch_vcpu_ioctl_run.
"""

from __future__ import annotations

import errno
import threading
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from fakekvm import decode
from fakekvm.calls import Call, File, Services
from fakekvm.errors import oserror
from fakekvm.execution import Execution
from fakekvm.host import CAP_GUEST_MEMFD_FLAGS
from fakekvm.runpage import RunPage
from fakekvm.sevdecode import KVM_MEMORY_ENCRYPT_OP

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fakekvm.calls import Caller
    from fakekvm.guests import Script
    from fakekvm.ring import DirtyRing
    from fakekvm.vm import Vm

__all__ = ["Vcpu"]

_SIGSET_BYTES = 8


class Vcpu(File):
    """A vCPU, which runs a script instead of the guest's code.

    Attributes:
        vm: its VM.
        fd: its pages, as a memory file.
        ring: its dirty ring, in a VM that has them.
    """

    kind = "vcpu"
    unknown_errno = errno.EINVAL

    def __init__(self, services: Services, vm: Vm, vcpu_id: int) -> None:
        super().__init__(services)
        self.vm = vm
        self._page = RunPage(f"kvm-vcpu:{vcpu_id}", vm.ring_bytes)
        self.fd: int = self._page.fd
        self._signal_mask: int | None = None
        self.ring: DirtyRing | None = None
        if vm.ring_bytes:
            self.ring = self._page.ring(vm.ring_bytes, services.host.ring_reserved_entries)
        self._registers = decode.reset_registers()
        self._sregs = decode.reset_sregs(vcpu_id)
        self._execution = Execution(vm, self._page, self.ring, self._registers)
        # The kernel's vcpu->mutex: a running vCPU keeps the other calls on it waiting.
        self._mutex = threading.Lock()

    def load(self, script: Script) -> None:
        """Replace what it executes. Waits for a KVM_RUN under way to return."""
        with self._mutex:
            self._execution.load(script)

    def check_caller(self, caller: Caller) -> None:
        """A vCPU serves whom its VM serves."""
        self.vm.check_caller(caller)

    def dispatch(self, request: int, arg: int, caller: Caller) -> int | File:
        """One call at a time."""
        with self._mutex:
            if request == decode.KVM_RUN:
                return self._run(arg, caller)
            return super().dispatch(request, arg, caller)

    def closed(self) -> None:
        """A vCPU outlives its descriptor: it goes when its VM goes."""
        self.vm.closed()

    def _run(self, arg: int, caller: Caller) -> int:
        if arg:
            raise oserror(errno.EINVAL)
        self._execution.run(partial(caller.is_signalled, self._signal_mask))
        return 0

    def _get_regs(self, address: int) -> int:
        self.vm.memory.write(address, decode.REGS.pack(*self._registers))
        return 0

    def _set_regs(self, address: int) -> int:
        data = self.vm.memory.read(address, decode.REGS.size)
        *registers, rflags = decode.REGS.unpack(data)
        # arch/x86/kvm/x86.c, __set_regs
        self._registers[:] = *registers, rflags | decode.X86_EFLAGS_FIXED
        return 0

    def _get_sregs(self, address: int) -> int:
        self.vm.memory.write(address, self._sregs)
        return 0

    def _set_sregs(self, address: int) -> int:
        self._sregs = self.vm.memory.read(address, len(self._sregs))
        return 0

    def _set_signal_mask(self, address: int) -> int:
        if not address:
            self._signal_mask = None
            return 0
        length = int.from_bytes(self.vm.memory.read(address, 4), "little")
        if length != _SIGSET_BYTES:
            raise oserror(errno.EINVAL)
        mask = self.vm.memory.read(address + 4, _SIGSET_BYTES)
        self._signal_mask = int.from_bytes(mask, "little")
        return 0

    def _memory_encrypt_op(self, _arg: int) -> int:
        # v6.16, arch/x86/kvm/x86.c, kvm_arch_vcpu_ioctl: known, for TDX, and refused by the others.
        raise oserror(errno.ENOTTY)

    calls: ClassVar[Mapping[int, Call]] = {
        decode.KVM_GET_REGS: Call(_get_regs),
        decode.KVM_SET_REGS: Call(_set_regs),
        decode.KVM_GET_SREGS: Call(_get_sregs),
        decode.KVM_SET_SREGS: Call(_set_sregs),
        decode.KVM_SET_SIGNAL_MASK: Call(_set_signal_mask),
        KVM_MEMORY_ENCRYPT_OP: Call(_memory_encrypt_op, needs=CAP_GUEST_MEMFD_FLAGS),
    }
