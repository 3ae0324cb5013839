"""A real vCPU's kvm_run, looked at from outside: what its guest announces by an exit.

The registers of a guest cannot be asked for by another process, but KVM stores them in kvm_run at
each exit if that is asked for there.
Source: Linux v6.12, Documentation/virt/kvm/api.rst, 4.10 and 5; arch/x86/kvm/x86.c,
kvm_arch_vcpu_ioctl_run (store_regs comes last), __get_regs (rflags comes last).
"""

from __future__ import annotations

import mmap
import os
import struct
from typing import NamedTuple

from fakekvm import decode

__all__ = ["Announcement", "RunArea"]

# struct kvm_run
_VALID_REGS, _DIRTY_REGS, _REGS = 288, 296, 304
_RFLAGS = _REGS + decode.REGS.size - 8
_SYNC_X86_REGS = 1 << 0  # KVM_SYNC_X86_REGS
_U64 = struct.Struct("<Q")
_REASON = struct.Struct("<I")


class Announcement(NamedTuple):
    """What the guest told: ``npages`` from ``gpa`` on, and what they become."""

    gpa: int
    npages: int
    attributes: int


class RunArea:
    """The first page of a vCPU.

    Args:
        fd: of the vCPU: kept, and closed with this.
        port: a write to it stands for KVM_HC_MAP_GPA_RANGE, with the same arguments in the same
            registers: rbx, rcx and rdx.

    Raises:
        OSError: it cannot be mapped.
    """

    def __init__(self, fd: int, port: int) -> None:
        self.fd = fd
        self._port = port
        self._area = mmap.mmap(fd, decode.PAGE_BYTES)
        self._is_taken = True

    def close(self) -> None:
        """Let go of it."""
        self._area.close()
        os.close(self.fd)

    def take(self) -> Announcement | None:
        """What the last exit announces, once; None: nothing, or it is not complete yet."""
        if self._is_taken or not self._read(_RFLAGS):
            return None
        found = self._announced()
        self._is_taken = found is not None
        return found

    def arm(self) -> None:
        """The vCPU is about to run, and what its last exit announced was taken."""
        if self._announced() is not None:
            # KVM keeps what it needs of an exit elsewhere. Left as it is, this one would be taken
            # again if we looked before the next.
            _REASON.pack_into(self._area, decode.RUN_EXIT_REASON, 0)
        self._write(_VALID_REGS, self._read(_VALID_REGS) | _SYNC_X86_REGS)
        if not self._read(_DIRTY_REGS) & _SYNC_X86_REGS:
            self._write(_RFLAGS, 0)  # no guest's: so it is seen when KVM has stored them all
        self._is_taken = False

    def _announced(self) -> Announcement | None:
        (reason,) = _REASON.unpack_from(self._area, decode.RUN_EXIT_REASON)
        if reason == decode.KVM_EXIT_IO:
            direction, _size, port, *_ = decode.RUN_IO.unpack_from(self._area, decode.RUN_UNION)
            if (direction, port) == (decode.RUN_IO_OUT, self._port):
                return Announcement(*decode.REGS.unpack_from(self._area, _REGS)[1:4])
        elif reason == decode.KVM_EXIT_HYPERCALL:
            number, *args = decode.RUN_HYPERCALL.unpack_from(self._area, decode.RUN_UNION)
            if number == decode.KVM_HC_MAP_GPA_RANGE:
                return Announcement(*args[:3])
        return None

    def _read(self, offset: int) -> int:
        return int(_U64.unpack_from(self._area, offset)[0])

    def _write(self, offset: int, value: int) -> None:
        _U64.pack_into(self._area, offset, value)
