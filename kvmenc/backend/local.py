"""The real kernel: this process opens /dev/kvm and issues the ioctls itself."""

from __future__ import annotations

import ctypes
import mmap
import os
from typing import TYPE_CHECKING

from kvmenc.backend.telling import tell

if TYPE_CHECKING:
    from collections.abc import Callable

# libc's ioctl and not fcntl.ioctl: that one takes buffers or 32-bit integers, never an address.
_libc = ctypes.CDLL(None, use_errno=True)
_ioctl = _libc.ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
_ioctl.restype = ctypes.c_int


class LocalBackend:
    """The kernel of this machine."""

    name = "local"

    def open(self, path: str, flags: int) -> int:
        """Open a device node (close-on-exec).

        Raises:
            OSError: ENOENT, EACCES, ... as open(2).
        """
        return os.open(path, flags | os.O_CLOEXEC)

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """Issue an ioctl; the interpreter's lock is released meanwhile.

        Raises:
            OSError: with the kernel's errno, EINTR included.
        """
        result: int = _ioctl(fd, request, arg)
        if result < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return result

    def seen(self, what: str, read: Callable[[], float | bytes]) -> float | bytes:
        """What ``read`` says; whoever records this process from outside is told."""
        value = read()
        tell(what, value)
        return value

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """Map part of a vCPU file descriptor: kvm_run, or the dirty ring."""
        return mmap.mmap(fd, length, offset=offset)

    def close(self, fd: int) -> None:
        """Close ``fd``."""
        os.close(fd)
