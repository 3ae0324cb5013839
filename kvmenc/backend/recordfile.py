"""The file of a recording: gzip over lines of JSON, a header, then a record for each call.

docs/recordings.md describes it; ``zcat FILE`` shows it. A file is read as hostile: what it may hold
is bounded before it is unpacked, each field is checked, and nothing is used of a file that is not
sound to its end.
"""

from __future__ import annotations

import math
import os
import zlib
from typing import IO, TYPE_CHECKING

import msgspec
from msgspec import Struct

from kvmenc.atomic import write_atomically
from kvmenc.backend.machine import MACHINE_FILES, MAX_MACHINE_FILE_BYTES
from kvmenc.backend.recordmodel import (
    CHUNK_BYTES,
    DIGEST_BYTES,
    MAX_MAPPED_BYTES,
    SCHEMA,
    AnyCall,
    Closed,
    End,
    Header,
    Ioctled,
    Mapped,
    Opened,
    Ran,
    Recording,
    Seen,
)
from kvmenc.errors import RecordingError
from kvmenc.filekind import begins_as

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvmenc.backend.recordmodel import Call, Change, Piece

__all__ = ["Writer", "load_recording"]

#: Of text, unpacked; it is held once, and what is decoded of it takes about as much again.
MAX_TEXT_BYTES = 128 * 2**20
MAX_FILE_BYTES = 64 * 2**20
MAX_CALLS = 400_000
#: JSON objects in all, and on a line: what they decode to is many times their text.
MAX_OBJECTS, MAX_LINE_OBJECTS = 2_000_000, 20_000
_MAX_HEADER_BYTES = 2**20
_STEP_BYTES = 2**20
#: What the packer holds back, and the last line.
_ROOM_BYTES = 2**20
_GZIP = 31  # zlib's window bits for a gzip header
_GZIP_MAGIC, _START_BYTES = b"\x1f\x8b", 16


class _Schema(Struct):
    """The one field that every version has."""

    schema: str


_Line = AnyCall | End


class Writer:
    """Packs records as they come; a file is made of them at the end, or never.

    Args:
        header: its first line.
        cut: what is more than a reader accepts is left out; else no file can be made.

    Attributes:
        calls: how many records it has.
        left_out: how many it has not.
    """

    def __init__(self, header: Header, *, cut: bool = False) -> None:
        self._encoder = msgspec.json.Encoder()
        self._packer = zlib.compressobj(6, zlib.DEFLATED, _GZIP)
        self._packed = bytearray()
        self._text_bytes = 0
        self._objects = 0
        self._cut = cut
        self._saved = False
        self.calls = 0
        self.left_out = 0
        self._add(self._encoder.encode(header) + b"\n")

    def add(self, call: Call) -> None:
        """Add the next record; nothing once the file was saved."""
        if self._saved:
            return
        line = self._encoder.encode(call) + b"\n"
        if self._cut and (self.left_out or not self._has_room(line)):
            self.left_out += 1
            return
        self.calls += 1
        self._add(line)

    def _has_room(self, line: bytes) -> bool:
        """Whether a reader will take it, and the end after it."""
        objects = line.count(b"{")
        return (
            self.calls < MAX_CALLS
            and self._text_bytes + len(line) < MAX_TEXT_BYTES - _ROOM_BYTES
            and len(self._packed) + len(line) < MAX_FILE_BYTES - _ROOM_BYTES
            and objects <= MAX_LINE_OBJECTS
            and self._objects + objects < MAX_OBJECTS
        )

    def _add(self, line: bytes) -> None:
        self._text_bytes += len(line)
        self._objects += line.count(b"{")
        if self.calls <= MAX_CALLS and self._text_bytes <= MAX_TEXT_BYTES:
            self._packed += self._packer.compress(line)

    def save(self, path: Path) -> None:
        """Write the file: whole, or not at all. Then this is used up, also if that failed.

        Raises:
            RecordingError: it cannot be written, or is larger than a reader would accept.
        """
        self._saved = True
        self._add(self._encoder.encode(End(self.calls, self.left_out)) + b"\n")
        packed = bytes(self._packed) + self._packer.flush()
        if self.calls > MAX_CALLS or self._text_bytes > MAX_TEXT_BYTES:
            size = f"{self.calls} calls in {self._text_bytes} bytes of text"
            raise _error(path, f"is not written: {size}, of {MAX_CALLS} in {MAX_TEXT_BYTES}")
        if len(packed) > MAX_FILE_BYTES:
            raise _error(path, f"is not written: more than {MAX_FILE_BYTES} bytes, packed")
        try:
            write_atomically(path, lambda file: file.write(packed))
        except OSError as error:
            raise _error(path, f"cannot be written: {error.strerror}") from error


def load_recording(path: Path) -> Recording:
    """Read a file to its end, and check all of it.

    Raises:
        RecordingError: it cannot be read or is no sound recording: names the file, the line, and
            what was expected there.
    """
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size > MAX_FILE_BYTES:
                raise ValueError(f"expected at most {MAX_FILE_BYTES} bytes")
            start = file.read(_START_BYTES)
            if not start.startswith(_GZIP_MAGIC):
                raise ValueError(begins_as(start))
            return _Reader(file, start).read()
    except OSError as error:
        raise _error(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise _error(path, f"not a usable recording: {error}") from error


class _Reader:
    """Reads one file; what is wrong with it is a ValueError that names the line."""

    def __init__(self, file: IO[bytes], start: bytes) -> None:
        self._lines = _lines(file, start)
        self._number = 0
        self._objects = 0

    def read(self) -> Recording:
        try:
            return self._read()
        except (ValueError, RecursionError, zlib.error) as error:
            raise ValueError(f"line {self._number}: {error}") from error

    def _read(self) -> Recording:
        header = _header(self._line())
        calls: list[AnyCall] = []
        while True:
            record = msgspec.json.decode(self._line(), type=_Line)
            if isinstance(record, End):
                break
            _check(record)
            calls.append(record)
            if len(calls) > MAX_CALLS:
                raise ValueError(f"expected at most {MAX_CALLS} calls")
        if record.calls != len(calls):
            raise ValueError(f"expected {len(calls)} calls - at `$.calls`")
        if next(self._lines, None) is not None:
            raise ValueError("expected nothing after the end of the recording")
        return Recording(header, tuple(calls))

    def _line(self) -> bytes:
        self._number += 1
        line = next(self._lines, None)
        if line is None:
            raise ValueError("expected another call, or the end of the recording")
        objects = line.count(b"{")
        self._objects += objects
        if objects > MAX_LINE_OBJECTS or self._objects > MAX_OBJECTS:
            raise ValueError(f"expected at most {MAX_LINE_OBJECTS} objects, {MAX_OBJECTS} in all")
        return line


def _lines(file: IO[bytes], start: bytes) -> Iterator[bytes]:
    """Unpacks step by step what follows ``start``; a line without its end is none."""
    unpacker, text_bytes, started = zlib.decompressobj(_GZIP), 0, bytearray()
    packed = start
    while not unpacker.eof:
        text = unpacker.decompress(packed, _STEP_BYTES)
        if not packed and not text:
            raise ValueError("expected more bytes: the file is cut off")
        text_bytes += len(text)
        if text_bytes > MAX_TEXT_BYTES:
            raise ValueError(f"expected at most {MAX_TEXT_BYTES} bytes of text")
        first, *others = text.split(b"\n")
        started += first
        for other in others:
            yield bytes(started)
            started = bytearray(other)
        packed = unpacker.unconsumed_tail or file.read(_STEP_BYTES)
    if started or unpacker.unused_data or file.read(1):
        raise ValueError("expected nothing after the last line")


def _header(line: bytes) -> Header:
    if len(line) > _MAX_HEADER_BYTES:
        raise ValueError(f"expected a header of at most {_MAX_HEADER_BYTES} bytes")
    schema = msgspec.json.decode(line, type=_Schema).schema
    if schema != SCHEMA:
        raise ValueError(f"expected {SCHEMA!r}, got {schema[:40]!a} - at `$.schema`")
    header = msgspec.json.decode(line, type=Header)
    _check_printable(header.backend, header.kvmenc_version)
    for name, text in header.machine.items():
        if name not in MACHINE_FILES or len(text) > MAX_MACHINE_FILE_BYTES:
            raise ValueError("expected files that a probe reads - at `$.machine`")
        _check_printable(text.replace("\n", "").replace("\t", ""))
    return header


def _check(call: AnyCall) -> None:
    """What types alone do not rule out."""
    match call:
        case Opened():
            _check_printable(call.path)
        case Seen():
            _check_printable(call.what)
            if isinstance(call.value, float) and not math.isfinite(call.value):
                raise ValueError("expected a finite number - at `$.value`")
        case Mapped():
            _check_changes(call.maps)
        case Ioctled():
            _check_printable(call.name, *call.before, *call.after)
            _check_changes(call.maps)
            for name, piece in (*call.before.items(), *call.after.items()):
                _check_piece(name, piece)
        case Ran():
            _check_printable(*call.exits)
        case Closed():
            pass


def _check_piece(name: str, piece: Piece) -> None:
    if piece.data is not None and piece.digests:
        raise ValueError(f"{name}: expected bytes or digests, not both")
    if piece.data is not None and len(piece.data) != piece.nbytes:
        raise ValueError(f"{name}: expected {piece.nbytes} bytes, got {len(piece.data)}")
    chunks = -(-piece.nbytes // CHUNK_BYTES)
    if piece.digests and len(piece.digests) != chunks * DIGEST_BYTES:
        raise ValueError(f"{name}: expected {chunks} digests")


def _check_changes(changes: tuple[Change, ...]) -> None:
    for change in changes:
        if change.offset + len(change.data) > MAX_MAPPED_BYTES:
            raise ValueError(f"expected mappings of at most {MAX_MAPPED_BYTES} bytes - at `$.maps`")


def _check_printable(*texts: str) -> None:
    """They are shown in terminals: nothing in them may move the cursor."""
    for text in texts:
        if not text.isprintable():
            raise ValueError(f"expected printable text, got {text[:40]!a}")


def _error(path: Path, what: str) -> RecordingError:
    """One line, even where the file's name or what it holds would break or colour it."""
    text = f"{path}: {what}"
    return RecordingError(text[:500] if text.isprintable() else ascii(text)[1:-1][:500])
