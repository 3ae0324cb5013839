"""A file through a buffer of fixed size: a stream of any length takes no more memory."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import StreamError

if TYPE_CHECKING:
    from io import RawIOBase

__all__ = ["BLOB_MAX_BYTES", "CAPACITY_BYTES", "Window", "printable"]

#: Enough for a thousand pages, so that handling them together pays.
CAPACITY_BYTES = 1 << 22

#: openEuler qemu-8.2.0, target/i386/sev.c, SEV_FW_BLOB_MAX_SIZE: of any blob that firmware takes.
BLOB_MAX_BYTES = 0x4000
_MOST_CHARACTERS = 500


def printable(text: str) -> str:
    """One line, even where names from a stream would break or colour it."""
    return (text if text.isprintable() else ascii(text)[1:-1])[:_MOST_CHARACTERS]


class Window:
    """What comes next in a file, without going back.

    Args:
        file: opened unbuffered; a pipe will do.
        name: as errors call it.
        capacity_bytes: of the buffer; nothing longer can be asked for at once.

    Attributes:
        data: the buffer. What it holds moves when more is read.
        array: the same bytes.
        pos: of the next byte in it.
        end: of the last byte read in it, exclusive.
    """

    def __init__(self, file: RawIOBase, name: str, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._file, self._name = file, name
        self.data = memoryview(bytearray(capacity_bytes))
        self.array = np.frombuffer(self.data, np.uint8)
        self.pos = self.end = 0
        self._base = 0
        self._at_end = False

    @property
    def base(self) -> int:
        """Where in the file the buffer begins."""
        return self._base

    @property
    def offset(self) -> int:
        """Of the next byte in the file."""
        return self._base + self.pos

    def fill(self) -> bool:
        """Read more, if there is more and room for it; False: nothing came."""
        if self._at_end or (self.pos == 0 and self.end == len(self.data)):
            return False
        left = self.end - self.pos
        self.data[:left] = bytes(self.data[self.pos : self.end])
        self._base += self.pos
        self.pos, self.end = 0, left
        came = self._read(self.data[left:])
        self._at_end = not came
        self.end += came
        return bool(came)

    def _read(self, into: memoryview) -> int:
        try:
            return self._file.readinto(into) or 0
        except OSError as error:
            raise self.error(f"it cannot be read on: {error.strerror}") from error

    def ensure(self, size: int) -> bool:
        """Whether so many bytes follow; they are in the buffer then."""
        while self.end - self.pos < size:
            if not self.fill():
                return False
        return True

    def take(self, size: int, what: str) -> bytes:
        """The next bytes. StreamError: there are not so many."""
        if not self.ensure(size):
            left = self.end - self.pos
            raise self.error(f"expected {size} bytes of {what}, and the file ends after {left}")
        self.pos += size
        return bytes(self.data[self.pos - size : self.pos])

    def skip(self, size: int, what: str) -> None:
        """Go past bytes, however many. StreamError: there are not so many."""
        while size > self.end - self.pos:
            size -= self.end - self.pos
            self.pos = self.end
            if not self.fill():
                raise self.error(f"expected {size} more bytes of {what}, and the file ends")
        self.pos += size

    def u8(self, what: str) -> int:
        """The next byte."""
        return self.take(1, what)[0]

    def u16(self, what: str) -> int:
        """The next be16."""
        return int.from_bytes(self.take(2, what), "big")

    def u32(self, what: str) -> int:
        """The next be32."""
        return int.from_bytes(self.take(4, what), "big")

    def u64(self, what: str) -> int:
        """The next be64."""
        return int.from_bytes(self.take(8, what), "big")

    def peek(self, layout: str) -> tuple[int, ...] | None:
        """Numbers that come next, by a ``struct`` layout; None: the file ends before."""
        if not self.ensure(struct.calcsize(layout)):
            return None
        return struct.unpack_from(layout, self.data, self.pos)

    def name(self, what: str) -> str:
        """A counted string: a byte for its length, then as many bytes of UTF-8."""
        encoded = self.take(self.u8(f"the length of {what}"), what)
        return encoded.decode(errors="backslashreplace")

    def blob(self, what: str) -> int:
        """Go past a be32 and as many bytes, which some firmware would take; returns how many."""
        size = self.u32(f"the length of {what}")
        if not 0 < size <= BLOB_MAX_BYTES:
            raise self.error(f"expected {what} of 1 to {BLOB_MAX_BYTES} bytes, got {size}")
        self.skip(size, what)
        return size

    def error(self, text: str, offset: int | None = None) -> StreamError:
        """The stream is wrong here, or at an offset in the file."""
        where = self.offset if offset is None else offset
        return StreamError(printable(f"{self._name}: at offset {where:#x}: {text}"))
