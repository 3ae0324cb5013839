"""A file a piece after the other: a stream of any length takes no more memory."""

from __future__ import annotations

import mmap
import struct
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import StreamError
from kvmenc.stream.source import Source
from kvmenc.stream.still import StillFile

if TYPE_CHECKING:
    from io import RawIOBase

    from numpy.typing import NDArray

__all__ = ["BLOB_MAX_BYTES", "CAPACITY_BYTES", "Window", "printable"]

#: Enough for some thousand pages, so that handling them together pays.
CAPACITY_BYTES = 1 << 24

#: openEuler qemu-8.2.0, target/i386/sev.c, SEV_FW_BLOB_MAX_SIZE: of any blob that firmware takes.
BLOB_MAX_BYTES = 0x4000
_MOST_CHARACTERS = 500


def printable(text: str) -> str:
    """One line, even where names from a stream would break or colour it."""
    return (text if text.isprintable() else ascii(text)[1:-1])[:_MOST_CHARACTERS]


class Window:
    """What comes next in a file, without going back: mapped if that is safe, read otherwise.

    Args:
        file: opened unbuffered, at its beginning; a pipe will do.
        name: as errors call it.
        capacity_bytes: of a piece; nothing longer can be asked for at once.

    Attributes:
        data: the piece. Another one takes its place when there is to be more.
        array: the same bytes.
        pos: of the next byte in it.
        end: of the last byte of the file in it, exclusive.
    """

    def __init__(self, file: RawIOBase, name: str, capacity_bytes: int = CAPACITY_BYTES) -> None:
        self._file, self._name, self._capacity_bytes = file, name, capacity_bytes
        self._base = self.pos = self.end = 0
        self._at_end = False
        self._hold(np.empty(0, np.uint8))
        self._source = Source(file)
        self._still: StillFile | None = None
        with suppress(OSError):
            self._still = StillFile(file)

    def _hold(self, piece: NDArray[np.uint8]) -> None:
        self.array, self.data = piece, piece.data

    @property
    def base(self) -> int:
        """Where in the file the piece begins."""
        return self._base

    @property
    def offset(self) -> int:
        """Of the next byte in the file."""
        return self._base + self.pos

    def fill(self) -> bool:
        """Have more, if there is more and room for it; False: nothing came."""
        if self._at_end or self.end - self.pos == self._capacity_bytes:
            return False
        if self._still:
            try:
                return self._map(self._still)
            except OSError:
                self._read_from_now_on()
        return self._read()

    def _map(self, still: StillFile) -> bool:
        """The next piece of a file that keeps still."""
        read, start = self._base + self.end, self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        self._at_end = read == still.size_bytes
        if self._at_end:
            return False
        piece = still.piece(start, self._capacity_bytes)
        self._base, self.pos, self.end = start, self.offset - start, len(piece)
        self._hold(np.frombuffer(piece, np.uint8))
        return self._base + self.end > read

    def _read_from_now_on(self) -> None:
        """Its bytes that are here already are copied: from now on it may change."""
        left = bytes(self.data[self.pos : self.end])
        self._base, self.pos, self.end = self.offset, 0, len(left)
        self._hold(np.empty(self._capacity_bytes, np.uint8))
        self.data[: self.end] = left
        self.release()
        self._file.seek(self._base + self.end)

    def release(self) -> None:
        """Nothing more is mapped; others may change the file."""
        if self._still:
            self._still.release()
        self._still = None

    def _read(self) -> bool:
        if not self.array.size:
            self._hold(np.empty(self._capacity_bytes, np.uint8))
        left = self.end - self.pos
        self.data[:left] = bytes(self.data[self.pos : self.end])
        self._base += self.pos
        self.pos, self.end = 0, left
        try:
            came = self._source.read_into(self.data[left:])
        except OSError as error:
            raise self.error(f"it cannot be read on: {error.strerror}") from error
        self._at_end = not came
        self.end += came
        return bool(came)

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
            raise self._cut_short(f"{size} bytes of {what}, and the file ends after {left}")
        self.pos += size
        return bytes(self.data[self.pos - size : self.pos])

    def skip(self, size: int, what: str) -> None:
        """Go past bytes, however many. StreamError: there are not so many."""
        while size > self.end - self.pos:
            size -= self.end - self.pos
            self.pos = self.end
            if not self.fill():
                raise self._cut_short(f"{size} more bytes of {what}, and the file ends")
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

    def _cut_short(self, missing: str) -> StreamError:
        return self.error(f"expected {missing}: it is cut short")

    def error(self, text: str, offset: int | None = None) -> StreamError:
        """The stream is wrong here, or at an offset in the file."""
        where = self.offset if offset is None else offset
        return StreamError(printable(f"{self._name}: at offset {where:#x}: {text}"))
