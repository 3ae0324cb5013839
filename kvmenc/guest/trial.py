"""Does KVM_HC_MAP_GPA_RANGE arrive as an exit on this host? A guest tries it."""

from __future__ import annotations

import errno
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.errors import HostError, IoctlError
from kvmenc.guest.program import Flip, Tick
from kvmenc.guest.scratch import ScratchVm
from kvmenc.kvm import Exit

if TYPE_CHECKING:
    from kvmenc.backend import Backend
    from kvmenc.guest.x86 import FlipBy

__all__ = ["delivered_hypercall"]

# A hypercall that arrives does so in microseconds; one that does not may loop for ever (KVM patches
# an instruction that the host cannot execute, again and again).
_PATIENCE_S = 0.2

# These say nothing of an instruction: the next trial may end otherwise.
_OF_THE_HOST = (errno.ENOMEM, errno.EIO)


def delivered_hypercall(backend: Backend) -> FlipBy | None:
    """The instruction by which a guest's hypercall arrives as an exit; None if none does.

    AMD's instruction is tried first where the CPU has SVM, Intel's first elsewhere.
    """
    order: tuple[FlipBy, ...] = ("vmmcall", "vmcall") if _has_svm() else ("vmcall", "vmmcall")
    for instruction in order:
        if _arrives(backend, instruction):
            return instruction
    return None


def _has_svm(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    return platform.machine() == "x86_64" and " svm " in cpuinfo.read_text()


def _arrives(backend: Backend, instruction: FlipBy) -> bool:
    with ScratchVm(backend) as machine:
        try:
            machine.deliver_hypercalls()
            machine.load((Flip(0x100, 1, private=False), Tick()), instruction)
            reason = machine.vcpu.run(timeout_s=_PATIENCE_S)
        except HostError as error:
            if isinstance(error, IoctlError) and error.errno in _OF_THE_HOST:
                raise
            return False
        hypercall = machine.vcpu.state.hypercall
        return reason == Exit.HYPERCALL and hypercall.nr == uapi.KVM_HC_MAP_GPA_RANGE
