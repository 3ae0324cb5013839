"""What another process has: its strings, its descriptors."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from kvmenc import uapi
from kvmenc.backend.callmemory import read

__all__ = ["descriptor_of", "link_of", "text_at"]

_PAGE_BYTES = 4096
_MOST_PAGES = 2  # PATH_MAX bytes, wherever they begin

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def text_at(pid: int, address: int) -> str:
    """A path; empty where there is none that ends in time."""
    text = b""
    for _ in range(_MOST_PAGES):
        chunk = read(pid, address, _PAGE_BYTES - address % _PAGE_BYTES)
        if chunk is None:
            break
        text += chunk
        if b"\0" in chunk:
            return os.fsdecode(text.split(b"\0", 1)[0])
        address += len(chunk)
    return ""


def link_of(pid: int, fd: int) -> str:
    """What a descriptor is of: a path, or such as ``anon_inode:kvm-vm``; empty: it is none."""
    try:
        return str(Path(f"/proc/{pid}/fd/{fd}").readlink())
    except OSError:
        return ""


def descriptor_of(pid: int, fd: int) -> int:
    """A descriptor of ours, of the same file; close it soon, as it keeps the file open.

    Raises:
        OSError: ENOSYS: Linux before 5.6; EPERM; EBADF; ESRCH.
    """
    process = os.pidfd_open(pid)
    try:
        found = _libc.syscall(*map(ctypes.c_long, (uapi.SYS_pidfd_getfd, process, fd, 0)))
    finally:
        os.close(process)
    if found < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return int(found)
