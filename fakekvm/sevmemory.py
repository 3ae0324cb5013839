"""Several pieces of a caller's memory in one system call, which is most of what a command costs.

As ``ProcessMemory`` otherwise: a bad address is EFAULT.
"""

from __future__ import annotations

import ctypes
import errno
import struct
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.decode import PAGE_BYTES
from fakekvm.errors import oserror
from fakekvm.processmemory import IOV_MAX, readv, writev

if TYPE_CHECKING:
    from collections.abc import Sequence

    from fakekvm.processmemory import ProcessMemory

__all__ = ["Foresight", "check_pages", "read_pieces", "write_pieces"]

_MOST_PIECES = 5
_IOVECS = [struct.Struct(f"{2 * (1 + count)}Q") for count in range(_MOST_PIECES + 1)]
_IOVEC_BYTES = 16
_LEAST_ROOM_BYTES = 1 << 16


class _Room(threading.local):
    """Each thread's own: what goes in or out, and the iovecs of one call."""

    def __init__(self) -> None:
        self.vectors = bytearray(_IOVECS[-1].size)
        self.vectors_at = ctypes.addressof(ctypes.c_char.from_buffer(self.vectors))
        self.grow(_LEAST_ROOM_BYTES)

    def grow(self, size: int) -> None:
        """Have room for so many bytes."""
        self.bytes = bytearray(size)
        self.view = memoryview(self.bytes)
        self.at = ctypes.addressof(ctypes.c_char.from_buffer(self.bytes))


_room = _Room()


def read_pieces(memory: ProcessMemory, *pieces: tuple[int, int]) -> list[bytes]:
    """What lies at each of at most five (address, size).

    Raises:
        OSError: EFAULT.
    """
    total = 0
    fields: list[int] = []
    for piece in pieces:
        fields += piece
        total += piece[1]
    room = _room
    _transfer(readv, memory.pid, room, total, fields)
    view, found, at = room.view, [], 0
    for _, size in pieces:
        found.append(bytes(view[at : at + size]))
        at += size
    return found


def write_pieces(memory: ProcessMemory, *pieces: tuple[int, bytes]) -> None:
    """Store at most five pieces, each at its address. Those before a bad one stay stored.

    Raises:
        OSError: EFAULT.
    """
    data, fields = b"".join([piece for _, piece in pieces]), []
    for address, piece in pieces:
        fields += [address, len(piece)]
    room, total = _room, len(data)
    if total <= len(room.bytes):
        room.view[:total] = data
    else:
        room.grow(total)
        room.view[:] = data
    _transfer(writev, memory.pid, room, total, fields)


def _transfer(
    call: ctypes._NamedFuncPointer, pid: int, room: _Room, total: int, fields: Sequence[int]
) -> None:
    if total > len(room.bytes):
        room.grow(total)
    count = len(fields) // 2
    _IOVECS[count].pack_into(room.vectors, 0, room.at, total, *fields)
    if call(pid, room.vectors_at, 1, room.vectors_at + _IOVEC_BYTES, count, 0) != total:
        raise oserror(errno.EFAULT)


class Foresight:
    """What a command will read, read with the command itself: that is what the one before read.

    Who sends a guest issues the same command over and over, with the same buffers, for a page and
    the page after it. A wrong guess costs one call more. All of it is read within the command.

    Args:
        memory: the caller's.
    """

    def __init__(self, memory: ProcessMemory) -> None:
        self._memory = memory
        self._guess: list[tuple[int, int]] = []
        self._known: list[bytes] = []
        self._next: list[tuple[int, int]] = []

    def begin(self, address: int, size: int) -> bytes:
        """The command.

        Raises:
            OSError: EFAULT.
        """
        command = address, size
        guess, self._next = self._next, [command]
        if not guess or guess[0] != command or len(guess) > _MOST_PIECES:
            guess = [command]
        try:
            found = read_pieces(self._memory, *guess)
        except OSError:
            guess = [command]
            found = read_pieces(self._memory, command)
        self._guess, self._known = guess, found
        return found[0]

    def read(self, address: int, size: int, step: int = 0) -> bytes:
        """What the command points at, in the order in which such a command looks.

        Args:
            address: of it.
            size: bytes.
            step: so much further on the next command will look.

        Raises:
            OSError: EFAULT.
        """
        piece, guess, at = (address, size), self._guess, len(self._next)
        if size <= PAGE_BYTES:
            self._next.append((address + step, size))
        if at < len(guess) and guess[at] == piece:
            return self._known[at]
        return read_pieces(self._memory, piece)[0]


def check_pages(memory: ProcessMemory, first: int, end: int) -> None:
    """See that every page between two addresses is there.

    A byte of each is read; of a large region its mappings are looked up, so that a guest's memory
    is not made to exist by it.

    Raises:
        OSError: EFAULT.
    """
    count = -(-(end - first) // PAGE_BYTES)
    if count > IOV_MAX:
        _check_mapped(memory.pid, first, end)
        return
    into, vectors = np.empty(count, np.uint8), np.ones((count + 1, 2), np.uint64)
    vectors[0] = into.ctypes.data, count
    vectors[1:, 0] = np.arange(first, end, PAGE_BYTES)
    at = vectors.ctypes.data
    if readv(memory.pid, at, 1, at + _IOVEC_BYTES, count, 0) != count:
        raise oserror(errno.EFAULT)


def _check_mapped(pid: int, first: int, end: int) -> None:
    at = first
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").splitlines():
        where, rights = line.split(maxsplit=2)[:2]
        start, stop = (int(it, 16) for it in where.split("-"))
        if start <= at < stop and rights.startswith("r"):
            at = stop
    if at < end:
        raise oserror(errno.EFAULT)
