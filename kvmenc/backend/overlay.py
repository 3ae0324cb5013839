"""fakekvm's encryption bitmap laid over a real KVM that has none.

No mainline kernel answers KVM_GET_PAGE_ENC_BITMAP. This backend passes everything to the KVM below
except those ioctls, and watches KVM_RUN: a guest's announcement (KVM_HC_MAP_GPA_RANGE where the
host delivers its exit, else a write to a port that stands in for it) is entered in the bitmap and
the guest goes on, as the 2019 kernel handled KVM_HC_PAGE_ENC_STATUS: before the guest's next
instruction, and without an exit that the caller sees.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fakekvm.encbitmap import EncBitmap
from fakekvm.processmemory import ProcessMemory
from kvmenc import uapi
from kvmenc.backend.base import unmap

if TYPE_CHECKING:
    import mmap

    from kvmenc.backend.base import Backend

__all__ = ["OverlayBackend"]

_PAGE_SHIFT = 12
_GUEST_EINVAL = -errno.EINVAL  # KVM_EINVAL: include/uapi/linux/kvm_para.h
_U64 = (1 << 64) - 1


@dataclass(slots=True)
class _OverlaidVcpu:
    bitmap: EncBitmap
    area: mmap.mmap

    @property
    def state(self) -> uapi.kvm_run:
        return uapi.kvm_run.from_buffer(self.area)


class OverlayBackend:
    """``lower`` with an encryption bitmap of ``revision`` on top.

    Args:
        lower: the KVM below.
        revision: which revision of the ioctl is answered (a name of ``uapi.REVISIONS``).
        flip_port: the port whose write stands in for the hypercall.

    Attributes:
        lower: the KVM below.
    """

    def __init__(self, lower: Backend, revision: str, flip_port: int) -> None:
        self.lower = lower
        self._revision = revision
        self._flip_port = flip_port
        self._memory = ProcessMemory(os.getpid())
        self._bitmaps: dict[int, EncBitmap] = {}
        self._vcpus: dict[int, _OverlaidVcpu] = {}
        self.flips_seen = 0
        self.name = f"{lower.name} + fakekvm {revision}"

    def open(self, path: str, flags: int) -> int:
        """As the KVM below."""
        return self.lower.open(path, flags)

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """As the KVM below."""
        return self.lower.mmap(fd, length, offset)

    def close(self, fd: int) -> None:
        """As the KVM below; a VM's bitmap goes with it."""
        self._bitmaps.pop(fd, None)
        vcpu = self._vcpus.pop(fd, None)
        if vcpu is not None:
            unmap(vcpu.area)
        self.lower.close(fd)

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """The encryption bitmap's ioctls are answered here, the others below."""
        bitmap = self._bitmaps.get(fd)
        if bitmap is not None and request in bitmap.requests:
            if os.getpid() != self._memory.pid:
                raise OSError(errno.EIO, os.strerror(errno.EIO))  # as KVM for a VM's own ioctls
            return bitmap.ioctl(request, arg, self._memory)
        result = self.lower.ioctl(fd, request, arg)
        if request == uapi.KVM_CREATE_VM:
            self._bitmaps[result] = EncBitmap(self._revision)
        elif request == uapi.KVM_CREATE_VCPU and bitmap is not None:
            self._vcpus[result] = _OverlaidVcpu(bitmap, self.lower.mmap(result, 4096, 0))
        elif request == uapi.KVM_RUN:
            while self._took_flip(fd):
                result = self.lower.ioctl(fd, request, arg)
        return result

    def _took_flip(self, fd: int) -> bool:
        """Whether the exit was an announcement; if so it is done and the guest may go on."""
        vcpu = self._vcpus[fd]
        state = vcpu.state
        if state.exit_reason == uapi.KVM_EXIT_IO and state.io.port == self._flip_port:
            regs = uapi.kvm_regs()
            self.lower.ioctl(fd, uapi.KVM_GET_REGS, ctypes.addressof(regs))
            self._flip(vcpu.bitmap, regs.rbx, regs.rcx, regs.rdx)
            return True
        if (
            state.exit_reason == uapi.KVM_EXIT_HYPERCALL
            and state.hypercall.nr == uapi.KVM_HC_MAP_GPA_RANGE
        ):
            gpa, npages, attributes = state.hypercall.args[:3]
            state.hypercall.ret = self._flip(vcpu.bitmap, gpa, npages, attributes)
            return True
        return False

    def _flip(self, bitmap: EncBitmap, gpa: int, npages: int, attributes: int) -> int:
        """What the guest gets back, as the kernel's unsigned register."""
        self.flips_seen += 1
        if gpa % (1 << _PAGE_SHIFT) or npages == 0:
            return _GUEST_EINVAL & _U64
        private = bool(attributes & uapi.KVM_MAP_GPA_RANGE_ENCRYPTED)
        return bitmap.set_range(gpa >> _PAGE_SHIFT, npages, private) & _U64
