"""A caller's memory as commands use it: few system calls, which are most of what a command costs.

As ``ProcessMemory`` otherwise: a bad address is EFAULT.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fakekvm import sevdecode as abi
from fakekvm.decode import PAGE_BYTES
from fakekvm.errors import oserror
from fakekvm.processmemory import IOV_MAX, readv, writev

if TYPE_CHECKING:
    from fakekvm.processmemory import ProcessMemory

__all__ = ["NOTHING", "CommandMemory", "Pieces", "check_pages"]

#: What to store, and where: an address and bytes, twice.
Pieces = tuple[int, bytes, int, bytes]
NOTHING: Pieces = 0, b"", 0, b""


_COMMAND, _PACKET = abi.COMMAND, abi.PACKET_STRUCT
_COMMAND_BYTES, _PACKET_BYTES = _COMMAND.size, _PACKET.size
_AHEAD_AT = _COMMAND_BYTES + _PACKET_BYTES
_READS, _WRITES = struct.Struct("12Q"), struct.Struct("8Q")  # iovecs: the room's, and each piece's
_IOVEC_BYTES = 16

#: Where a command's struct is; address and size of header, contents and guest memory to be read.
_Wanted = tuple[int, int, int, int, int, int, int]


class CommandMemory:
    """What commands read and write, one at a time.

    All that a command for a page will read is read with the command itself: who sends a guest
    issues the same one over and over, with the same buffers or the next ones, for a page and the
    page after it. So each place is guessed to be as far from the last one as that was from the one
    before. A wrong guess costs a call or two more.

    Args:
        memory: the caller's.
    """

    def __init__(self, memory: ProcessMemory) -> None:
        self._memory = memory
        self._vectors = bytearray(_READS.size)
        self._at = ctypes.addressof(ctypes.c_char.from_buffer(self._vectors))
        self._have_room(3 * PAGE_BYTES)
        self._last: _Wanted = (0, 0, 0, 0, 0, 0, 0)
        self._guess: _Wanted | None = None
        self._is_read = False

    def _have_room(self, size: int) -> None:
        room = bytearray(size)
        self._room = memoryview(room)
        self._room_at = ctypes.addressof(ctypes.c_char.from_buffer(room))

    def command(self, address: int, entered: float) -> abi.Command:
        """A command, issued at this time.

        Raises:
            OSError: EFAULT.
        """
        guess = self._guess
        if guess is not None and self._read_ahead(address, guess):
            self._is_read = True
            number, data, error, fd = _COMMAND.unpack_from(self._room)
        else:
            self._is_read, self._guess = False, None
            number, data, error, fd = self._memory.unpack(address, _COMMAND)
        return abi.Command(number, data, error, fd, entered)

    def _read_ahead(self, address: int, guess: _Wanted) -> bool:
        """Whether all of it could be read."""
        struct_at, _, hdr_len, _, trans_len, _, page_len = guess
        total, at = _AHEAD_AT + hdr_len + trans_len + page_len, self._at
        if total > len(self._room):
            self._have_room(total)
        start = self._room_at, total, address, _COMMAND_BYTES, struct_at, _PACKET_BYTES
        try:
            _READS.pack_into(self._vectors, 0, *start, *guess[1:])
        except struct.error:
            return False
        done: int = readv(self._memory.pid, at, 1, at + _IOVEC_BYTES, 5, 0)
        return done == total

    def packet(self, address: int) -> abi.Packet:
        """The struct of a command that was just read, and points here.

        Raises:
            OSError: EFAULT.
        """
        if self._is_read and self._guess is not None and self._guess[0] == address:
            return abi.Packet(*_PACKET.unpack_from(self._room, _COMMAND_BYTES))
        return abi.Packet(*self._memory.unpack(address, _PACKET))

    def ahead(self, wanted: _Wanted) -> memoryview | None:
        """What was read of it with the command: header, contents and guest memory in one.

        Returns:
            Good until the next command; None: it was guessed wrong.
        """
        found = self._room[_AHEAD_AT:] if self._is_read and wanted == self._guess else None
        at, hdr_at, hdr_len, trans_at, trans_len, page_at, page_len = wanted
        last_at, last_hdr, _, last_trans, _, last_page, _ = self._last
        self._last = wanted
        self._guess = (
            2 * at - last_at,
            2 * hdr_at - last_hdr,
            hdr_len,
            2 * trans_at - last_trans,
            trans_len,
            2 * page_at - last_page,
            page_len,
        )
        return found

    def write(self, pieces: Pieces, address: int, command: bytes) -> None:
        """Store two pieces, each at its place, and the command. Those before a bad one stay.

        Raises:
            OSError: EFAULT.
        """
        one_at, one, other_at, other = pieces
        data = b"".join((one, other, command))
        total, at = len(data), self._at
        if total > len(self._room):
            self._have_room(total)
        self._room[:total] = data
        places = one_at, len(one), other_at, len(other), address, len(command)
        _WRITES.pack_into(self._vectors, 0, self._room_at, total, *places)
        if writev(self._memory.pid, at, 1, at + _IOVEC_BYTES, 3, 0) != total:
            raise oserror(errno.EFAULT)


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
    for line in Path(f"/proc/{pid}/maps").read_text("utf-8", "replace").split("\n")[:-1]:
        where, rights = line.split(maxsplit=2)[:2]
        start, stop = (int(it, 16) for it in where.split("-"))
        if start <= at < stop and rights.startswith("r"):
            at = stop
    if at < end:
        raise oserror(errno.EFAULT)
