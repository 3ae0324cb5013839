"""The pages that a vCPU's file descriptor maps: kvm_run, the port data behind it, the dirty ring.

Source: Linux v6.12, include/uapi/linux/kvm.h, struct kvm_run; virt/kvm/kvm_main.c, kvm_vcpu_fault.
"""

from __future__ import annotations

import fcntl
import mmap
import os

from fakekvm import decode
from fakekvm.ring import DirtyRing

__all__ = ["RunPage"]

_PLAIN_PAGES = 3  # kvm_run, port data, coalesced MMIO


class RunPage:
    """A memory file, so that mapping the vCPU is really mapping it.

    Attributes:
        fd: the file.
    """

    def __init__(self, name: str, ring_bytes: int) -> None:
        pages = decode.KVM_DIRTY_LOG_PAGE_OFFSET if ring_bytes else _PLAIN_PAGES
        size = pages * decode.PAGE_BYTES + ring_bytes
        self.fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(self.fd, size)
        # A holder of the descriptor must not be able to cut it: we would die of SIGBUS.
        fcntl.fcntl(self.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
        self._area = mmap.mmap(self.fd, size)

    def ring(self, ring_bytes: int, reserved_entries: int) -> DirtyRing:
        """The dirty ring in its pages."""
        first_byte = decode.KVM_DIRTY_LOG_PAGE_OFFSET * decode.PAGE_BYTES
        return DirtyRing(self._area, first_byte, ring_bytes, reserved_entries)

    def wants_exit(self) -> bool:
        """Whether userspace wants KVM_RUN to return at once."""
        return self._area[decode.RUN_IMMEDIATE_EXIT] != 0

    def hypercall_ret(self) -> int:
        """What userspace made of a hypercall."""
        at = decode.RUN_HYPERCALL_RET
        return int.from_bytes(self._area[at : at + 8], "little")

    def exit(self, reason: int) -> None:
        """Say why KVM_RUN returns."""
        at = decode.RUN_EXIT_REASON
        self._area[at : at + 4] = reason.to_bytes(4, "little")

    def exit_port_out(self, port: int, size: int, value: int) -> None:
        """KVM_EXIT_IO: the guest wrote to a port."""
        self.exit(decode.KVM_EXIT_IO)
        io = (decode.RUN_IO_OUT, size, port, 1, decode.RUN_IO_DATA)
        decode.RUN_IO.pack_into(self._area, decode.RUN_UNION, *io)
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._area[decode.RUN_IO_DATA : decode.RUN_IO_DATA + size] = data

    def exit_mmio_write(self, gpa: int, value: int) -> None:
        """KVM_EXIT_MMIO: the guest wrote 8 bytes where it has no memory that it may write."""
        self.exit(decode.KVM_EXIT_MMIO)
        mmio = (gpa, value & decode.U64, 8, 1)
        decode.RUN_MMIO.pack_into(self._area, decode.RUN_UNION, *mmio)

    def exit_hypercall(self, number: int, args: tuple[int, int, int]) -> None:
        """KVM_EXIT_HYPERCALL, from 64-bit code; ``ret`` is 0 until userspace stores another."""
        self.exit(decode.KVM_EXIT_HYPERCALL)
        hypercall = (number, *args, 0, 0, 0, 0, decode.RUN_HYPERCALL_LONG_MODE)
        decode.RUN_HYPERCALL.pack_into(self._area, decode.RUN_UNION, *hypercall)
