"""A whole fake kernel, as far as KVM goes: what stands where the system calls would."""

from __future__ import annotations

import errno
import os
from collections import Counter
from typing import TYPE_CHECKING, Self

from fakekvm.decode import U32, U64
from fakekvm.errors import oserror
from fakekvm.host import Host
from fakekvm.processmemory import ProcessMemory
from fakekvm.sevdevice import SevDevice
from fakekvm.sevfirmware import Firmware
from fakekvm.system import System
from fakekvm.vm import Vm

if TYPE_CHECKING:
    from fakekvm.calls import File
    from fakekvm.guests import Script

__all__ = ["Kernel"]

_DEVICE, _SEV_DEVICE = "/dev/kvm", "/dev/sev"


class Kernel:
    """Answers open, ioctl and close for /dev/kvm and what comes from it, on a given host.

    File descriptors are real ones (of memory files and eventfds), so that their numbers are
    nobody else's and mmap() of a vCPU's works. Any thread may call; another process gets EIO.
    As a context manager it closes at the end what is still open.

    Attributes:
        host: what kind of machine this is.
        firmware: its SEV firmware, not reachable on hosts without SEV.
        unknown: how often each (kind of file, request number) was asked for that it does not have.
    """

    def __init__(self, host: Host | None = None) -> None:
        self.host = host or Host()
        self.firmware = Firmware(self.host)
        self.unknown: Counter[tuple[str, int]] = Counter()
        self._files: dict[int, File] = {}
        self._memory = ProcessMemory(os.getpid())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        for fd in list(self._files):
            self.close(fd)

    def open(self, path: str, flags: int = os.O_RDWR) -> int:
        """Open /dev/kvm or /dev/sev; returns a file descriptor.

        Raises:
            OSError: what the host fails with; ENOENT for any other path.
        """
        if path not in (_DEVICE, _SEV_DEVICE) or (path == _SEV_DEVICE and not self.host.sev):
            raise oserror(errno.ENOENT)
        if self.host.open_errno:
            raise oserror(self.host.open_errno)
        close_on_exec = os.EFD_CLOEXEC if flags & os.O_CLOEXEC else 0
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        file = System(self) if path == _DEVICE else SevDevice(self, writable=writable)
        return self.install(file, os.eventfd(0, close_on_exec))

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """Carry out a request on a descriptor; ``arg`` is a number or an address in this process.

        Raises:
            OSError: with the kernel's errno; EBADF for a descriptor that is not open here.
        """
        file = self._files.get(fd)
        if file is None:
            raise oserror(errno.EBADF)
        if self._memory.pid != os.getpid():
            self._memory = ProcessMemory(os.getpid())
        return file.ioctl(request & U32, arg & U64, self._memory)

    def close(self, fd: int) -> None:
        """Close a descriptor. A VM lives on while one of its vCPUs is open.

        Raises:
            OSError: EBADF.
        """
        file = self._files.pop(fd, None)
        if file is None:
            raise oserror(errno.EBADF)
        os.close(fd)
        file.closed()

    def load_guest(self, vm_fd: int, vcpu_id: int, script: Script) -> None:
        """Give a vCPU what it is to execute from its next KVM_RUN on.

        Args:
            vm_fd: its VM.
            vcpu_id: as given to KVM_CREATE_VCPU.
            script: steps of ``guests``.

        Raises:
            OSError: EBADF, no VM has this descriptor; ENOENT, it has no such vCPU.
        """
        vm = self._files.get(vm_fd)
        if not isinstance(vm, Vm):
            raise oserror(errno.EBADF)
        if vcpu_id not in vm.vcpus:
            raise oserror(errno.ENOENT)
        vm.vcpus[vcpu_id].load(script)

    def guest_view(self, vm_fd: int, address: int, size: int) -> bytes:
        """The caller's memory as an SEV guest reads it, where it takes it for private.

        Args:
            vm_fd: the guest's VM.
            address: in this process.
            size: bytes.

        Raises:
            OSError: EBADF, no VM has this descriptor; EFAULT.
        """
        vm = self._files.get(vm_fd)
        if not isinstance(vm, Vm):
            raise oserror(errno.EBADF)
        return vm.sev.guest_view(address, size)

    def install(self, file: File, fd: int) -> int:
        """Make ``fd`` a descriptor of ``file``; returns it."""
        self._files[fd] = file
        return fd

    def file_of(self, fd: int) -> File | None:
        """The file behind a descriptor; None if it is none of this kernel's."""
        return self._files.get(fd)
