"""Bytes to and from another process's memory, which goes on running meanwhile."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING, NamedTuple

from kvmenc import uapi

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Copy", "Span", "is_mapped", "read_bytes", "write_bytes"]

_IOV_MAX = 1024  # Linux v6.12, include/uapi/linux/uio.h, UIO_MAXIOV

_libc = ctypes.PyDLL(None, use_errno=True)
for _function in (_libc.process_vm_readv, _libc.process_vm_writev):
    _vector = (ctypes.c_void_p, ctypes.c_ulong)
    _function.argtypes = (ctypes.c_int, *_vector, *_vector, ctypes.c_ulong)
    _function.restype = ctypes.c_ssize_t


class Span(NamedTuple):
    """Bytes here and there.

    Attributes:
        here: our address; what is there must outlive the copying.
        there: the other process's address.
        nbytes: how many.
    """

    here: int
    there: int
    nbytes: int


class Copy:
    """Spans to be copied between us and a process, again and again: prepared once.

    Args:
        pid: the other process.
        spans: any number.
    """

    def __init__(self, pid: int, spans: Sequence[Span]) -> None:
        self._calls = [
            _arguments(pid, spans[first : first + _IOV_MAX])
            for first in range(0, len(spans), _IOV_MAX)
        ]
        self._nbytes = [
            sum(span.nbytes for span in spans[first : first + _IOV_MAX])
            for first in range(0, len(spans), _IOV_MAX)
        ]

    def fetch(self) -> None:
        """Copy from there to here.

        Raises:
            OSError: EFAULT: not all of it is mapped there; ESRCH; EPERM.
        """
        for arguments, nbytes in zip(self._calls, self._nbytes, strict=True):
            _check(_libc.process_vm_readv(*arguments), nbytes)

    def send(self) -> None:
        """Copy from here to there; raises as ``fetch``."""
        for arguments, nbytes in zip(self._calls, self._nbytes, strict=True):
            _check(_libc.process_vm_writev(*arguments), nbytes)


def _arguments(pid: int, spans: Sequence[Span]) -> tuple[object, ...]:
    vector = uapi.iovec * len(spans)
    here = vector(*(uapi.iovec(span.here, span.nbytes) for span in spans))
    there = vector(*(uapi.iovec(span.there, span.nbytes) for span in spans))
    return pid, here, len(spans), there, len(spans), 0


def _check(copied: int, nbytes: int) -> None:
    if copied != nbytes:
        number = ctypes.get_errno() if copied < 0 else errno.EFAULT
        raise OSError(number, os.strerror(number))


def read_bytes(pid: int, address: int, nbytes: int) -> bytes:
    """Bytes of another process; raises as ``Copy.fetch``."""
    buffer = ctypes.create_string_buffer(nbytes)
    Copy(pid, [Span(ctypes.addressof(buffer), address, nbytes)]).fetch()
    return buffer.raw


def write_bytes(pid: int, address: int, data: bytes) -> None:
    """Write to another process; raises as ``Copy.send``."""
    buffer = ctypes.create_string_buffer(data, len(data))
    Copy(pid, [Span(ctypes.addressof(buffer), address, len(data))]).send()


def is_mapped(pid: int, address: int) -> bool:
    """Whether a process may read the byte at ``address``."""
    try:
        read_bytes(pid, address, 1)
    except OSError as error:
        if error.errno == errno.EFAULT:
            return False
        raise
    return True
