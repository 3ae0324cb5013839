"""A whole fake kernel, as far as KVM goes: what stands where the system calls would."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Self

from fakekvm.calls import Caller
from fakekvm.decode import U32, U64
from fakekvm.errors import oserror
from fakekvm.machine import Machine
from fakekvm.processmemory import ProcessMemory
from fakekvm.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fakekvm.calls import File
    from fakekvm.faults import Fault
    from fakekvm.guests import Script
    from fakekvm.host import Host
    from fakekvm.scripts import Scripts

__all__ = ["Kernel"]

_MAX_FD = (1 << 31) - 1


class _Self:
    """This process, as the one that calls."""

    def __init__(self, files: dict[int, File]) -> None:
        self.memory = ProcessMemory(os.getpid())
        self._files = files

    def file_of(self, fd: int) -> File | None:
        """By the kernel's own table."""
        file = self._files.get(fd)
        if file is None:
            # A caller's u32 need not be a number that a descriptor can have.
            os.fstat(fd if fd <= _MAX_FD else -1)  # EBADF
        return file


class Kernel(Machine):
    """Answers open, ioctl and close for /dev/kvm and what comes from it, to its own process.

    File descriptors are real ones (of memory files and eventfds), so that their numbers are
    nobody else's and mmap() of a vCPU's works. Any thread may call; another process gets EIO.
    As a context manager it closes at the end what is still open.

    Args:
        host, scripts, faults, seed: as of ``Machine``.
    """

    def __init__(
        self,
        host: Host | None = None,
        scripts: Scripts | None = None,
        faults: Iterable[Fault] = (),
        seed: int = 0,
    ) -> None:
        super().__init__(host, scripts, faults, seed)
        self._files: dict[int, File] = {}
        self._caller = Caller(_Self(self._files))

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
        return self._install(self.open_file(path, flags), flags)

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """Carry out a request on a descriptor; ``arg`` is a number or an address in this process.

        Raises:
            OSError: with the kernel's errno; EBADF for a descriptor that is not open here.
        """
        file = self._files.get(fd)
        if file is None:
            raise oserror(errno.EBADF)
        caller = self._caller
        if caller.process.memory.pid != os.getpid():
            caller = self._caller = Caller(_Self(self._files))
        result = self.carry_out(file, request & U32, arg & U64, caller)
        return result if isinstance(result, int) else self._install(result, os.O_CLOEXEC)

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

    def file_of(self, fd: int) -> File | None:
        """The file behind a descriptor; None if it is none of this kernel's."""
        return self._files.get(fd)

    def _install(self, file: File, flags: int) -> int:
        fd = file.fd
        if fd is None:
            fd = os.eventfd(0, os.EFD_CLOEXEC if flags & os.O_CLOEXEC else 0)
        self._files[fd] = file
        return fd
