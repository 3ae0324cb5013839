"""A vCPU.

Source: Linux v6.12, virt/kvm/kvm_main.c, kvm_vcpu_ioctl; arch/x86/kvm/x86.c,
kvm_arch_vcpu_ioctl_run.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING, ClassVar

from fakekvm import decode
from fakekvm.calls import Call, File, Services
from fakekvm.errors import oserror
from fakekvm.execution import Execution
from fakekvm.runpage import RunPage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fakekvm.guests import Script
    from fakekvm.processmemory import ProcessMemory
    from fakekvm.ring import DirtyRing
    from fakekvm.vm import Vm

__all__ = ["Vcpu"]

_SIGSET_BYTES = 8


class Vcpu(File):
    """A vCPU, which runs a script instead of the guest's code.

    Attributes:
        vm: its VM.
        fd: the descriptor to install.
        ring: its dirty ring, in a VM that has them.
    """

    kind = "vcpu"
    unknown_errno = errno.EINVAL

    def __init__(self, services: Services, vm: Vm, vcpu_id: int) -> None:
        super().__init__(services)
        self._vm = self.vm = vm
        self._page = RunPage(f"kvm-vcpu:{vcpu_id}", vm.ring_bytes)
        self.fd = self._page.fd
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

    def check_caller(self, memory: ProcessMemory) -> None:
        """A vCPU serves whom its VM serves."""
        self._vm.check_caller(memory)

    def dispatch(self, request: int, arg: int, memory: ProcessMemory) -> int:
        """One call at a time."""
        with self._mutex:
            return super().dispatch(request, arg, memory)

    def closed(self) -> None:
        """A vCPU outlives its descriptor: it goes when its VM goes."""
        self._vm.closed()

    def _run(self, arg: int) -> int:
        if arg:
            raise oserror(errno.EINVAL)
        self._execution.run()
        return 0

    def _get_regs(self, address: int) -> int:
        self._vm.memory.write(address, decode.REGS.pack(*self._registers))
        return 0

    def _set_regs(self, address: int) -> int:
        data = self._vm.memory.read(address, decode.REGS.size)
        self._registers[:] = decode.REGS.unpack(data)
        return 0

    def _get_sregs(self, address: int) -> int:
        self._vm.memory.write(address, self._sregs)
        return 0

    def _set_sregs(self, address: int) -> int:
        self._sregs = self._vm.memory.read(address, len(self._sregs))
        return 0

    def _set_signal_mask(self, address: int) -> int:
        # Checked, and not kept: no signal interrupts a script.
        if not address:
            return 0
        length = int.from_bytes(self._vm.memory.read(address, 4), "little")
        if length != _SIGSET_BYTES:
            raise oserror(errno.EINVAL)
        self._vm.memory.read(address + 4, _SIGSET_BYTES)
        return 0

    calls: ClassVar[Mapping[int, Call]] = {
        decode.KVM_RUN: Call(_run),
        decode.KVM_GET_REGS: Call(_get_regs),
        decode.KVM_SET_REGS: Call(_set_regs),
        decode.KVM_GET_SREGS: Call(_get_sregs),
        decode.KVM_SET_SREGS: Call(_set_sregs),
        decode.KVM_SET_SIGNAL_MASK: Call(_set_signal_mask),
    }
