"""System calls that Python's os module does not have."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HUGETLBFS_MAGIC", "TMPFS_MAGIC", "filesystem_type", "mincore", "process_vm_readv"]

# Linux v6.12, include/uapi/linux/magic.h
HUGETLBFS_MAGIC = 0x958458F6
TMPFS_MAGIC = 0x01021994

_STATFS_BYTES = 120  # struct statfs of 64-bit Linux, whose first member is the type, a long

_libc = ctypes.CDLL(None, use_errno=True)
_libc.process_vm_readv.argtypes = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)
_libc.process_vm_readv.restype = ctypes.c_ssize_t
_libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
_libc.fstatfs.argtypes = (ctypes.c_int, ctypes.c_void_p)


def process_vm_readv(pid: int, spans: NDArray[np.uint64], into: NDArray[np.uint8]) -> int:
    """Read memory of another process, many places in one call.

    Args:
        pid: the process.
        spans: shape (n, 2): address and length of each place, in bytes; n is 1024 at most.
        into: C-contiguous; takes the places' bytes one after another.

    Returns:
        How many bytes were read; fewer than asked where a place cannot be read.

    Raises:
        OSError: EFAULT where the very first place cannot be read; EPERM; ESRCH.
    """
    local = np.array([into.ctypes.data, into.nbytes], np.uint64)
    remote = np.ascontiguousarray(spans)
    return _checked(
        _libc.process_vm_readv(pid, local.ctypes.data, 1, remote.ctypes.data, len(remote), 0)
    )


def mincore(address: int, into: NDArray[np.uint8], page_size: int) -> None:
    """Which pages of a mapping of this process are in memory; bit 0 of each byte says it.

    Args:
        address: the first page.
        into: C-contiguous, a byte a page.
        page_size: in bytes.

    Raises:
        OSError: ENOMEM: not mapped.
    """
    _checked(_libc.mincore(address, into.size * page_size, into.ctypes.data))


def filesystem_type(fd: int) -> int:
    """The magic number of the file system that a file lies in.

    Raises:
        OSError: as fstatfs(2).
    """
    answer = np.zeros(_STATFS_BYTES // 8, np.int64)
    _checked(_libc.fstatfs(fd, answer.ctypes.data))
    return int(answer[0])


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
