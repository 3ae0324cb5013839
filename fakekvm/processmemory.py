"""The memory of the process that makes the calls: the only way in and out of it.

The kernel's copy_from_user and copy_to_user answer a bad address with EFAULT. So do these, since
the system calls behind them work on another process's memory as on one's own: a NULL or wild
pointer in an argument is an errno here, and not the end of this process.
"""

from __future__ import annotations

import ctypes
import errno
import threading
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.errors import oserror

if TYPE_CHECKING:
    import struct

    from numpy.typing import NDArray

__all__ = ["IOV_MAX", "ProcessMemory", "readv", "writev"]

IOV_MAX = 1024  # include/uapi/linux/uio.h, UIO_MAXIOV

_libc = ctypes.CDLL(None, use_errno=True)
_SIGNATURE = (
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_ulong,
)
readv = _libc.process_vm_readv
writev = _libc.process_vm_writev
for _call in (readv, writev):
    _call.argtypes = _SIGNATURE
    _call.restype = ctypes.c_ssize_t

_WORD_BYTES = 8
_SMALL_BYTES = 512


class _Scratch(threading.local):
    """Each thread's own pair of iovecs and a small buffer: allocating them cost most of a call."""

    def __init__(self) -> None:
        self.vectors = (ctypes.c_uint64 * 4)()
        self.local = ctypes.addressof(self.vectors)
        self.remote = self.local + 16
        self.small = ctypes.create_string_buffer(_SMALL_BYTES)
        self.small_address = ctypes.addressof(self.small)


_scratch = _Scratch()


class ProcessMemory:
    """The memory of process ``pid``. Every failure is ``OSError(EFAULT)``, as in the kernel."""

    __slots__ = ("pid",)

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes from ``address`` on."""
        if size <= _SMALL_BYTES:
            local = _scratch.small_address
            self._transfer(readv, local, address, size)
            return ctypes.string_at(local, size)
        buffer = ctypes.create_string_buffer(size)
        self._transfer(readv, ctypes.addressof(buffer), address, size)
        return buffer.raw

    def unpack(self, address: int, layout: struct.Struct) -> tuple[int, ...]:
        """The fields of a small struct at ``address``."""
        scratch = _scratch
        self._transfer(readv, scratch.small_address, address, layout.size)
        return layout.unpack_from(scratch.small)

    def write(self, address: int, data: bytes) -> None:
        """Store ``data`` at ``address``. What was stored before a bad page stays stored."""
        if len(data) <= _SMALL_BYTES:
            ctypes.memmove(_scratch.small_address, data, len(data))
            self._transfer(writev, _scratch.small_address, address, len(data))
            return
        self.write_array(address, np.frombuffer(data, np.uint8))

    def read_array(self, address: int, array: NDArray[np.generic]) -> None:
        """Fill a contiguous array from ``address`` on."""
        self._transfer(readv, array.ctypes.data, address, array.nbytes)

    def write_array(self, address: int, array: NDArray[np.generic]) -> None:
        """Store a contiguous array at ``address``, without a copy in between."""
        self._transfer(writev, array.ctypes.data, address, array.nbytes)

    def write_from(self, address: int, local: int, size: int) -> None:
        """Store ``size`` bytes that lie at ``local`` in this process."""
        self._transfer(writev, local, address, size)

    def write_words(self, addresses: NDArray[np.uint64], value: int) -> None:
        """Store the 8-byte ``value`` at each of at most ``IOV_MAX`` addresses, in their order."""
        count = addresses.size
        values = np.full(count, value & (1 << 64) - 1, "<u8")
        vectors = np.empty((count + 1, 2), np.uint64)
        vectors[0] = values.ctypes.data, values.nbytes
        vectors[1:, 0] = addresses
        vectors[1:, 1] = _WORD_BYTES
        local = vectors.ctypes.data
        _expect(writev(self.pid, local, 1, local + 16, count, 0), values.nbytes)

    def _transfer(
        self, call: ctypes._NamedFuncPointer, local: int, address: int, size: int
    ) -> None:
        if not size:
            return
        scratch = _scratch
        vectors = scratch.vectors
        vectors[0], vectors[1], vectors[2], vectors[3] = local, size, address, size
        if call(self.pid, scratch.local, 1, scratch.remote, 1, 0) != size:
            raise oserror(errno.EFAULT)


def _expect(transferred: int, size: int) -> None:
    if transferred != size:
        raise oserror(errno.EFAULT)
