"""Reading streams that are bytes in memory."""

from __future__ import annotations

import os
from contextlib import contextmanager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from kvmenc.stream import Batch, Dialect, StreamReader, StreamReport, summarize
from kvmenc.stream.batch import KIND_NAMES
from kvmenc.stream.events import Call
from kvmenc.stream.wire import Section
from tests.stream.raw import Record

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase

    from kvmenc.stream.history import WatchedPage

#: The smallest that the reader can do with: so records are cut by it often.
SMALL_BYTES = 1 << 18


@contextmanager
def opened(data: bytes, *, still: bool = True) -> Iterator[RawIOBase]:
    """A file that is mapped, as nobody has it open to write; or not ``still``, and it is read."""
    with TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder, "stream")
        path.write_bytes(data)
        with path.open("rb", buffering=0) as file, path.open("ab") if not still else nullcontext():
            yield file


@contextmanager
def as_file(data: bytes) -> Iterator[str]:
    fd = os.memfd_create("stream")
    try:
        os.write(fd, data)
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def summary(
    data: bytes, dialect: str | None = None, pages: tuple[WatchedPage, ...] = ()
) -> StreamReport:
    with as_file(data) as path:
        return summarize(Path(path), dialect=Dialect(dialect) if dialect else None, pages=pages)


def calls_of(
    data: bytes, dialect: str | None = None, capacity_bytes: int = SMALL_BYTES
) -> list[list[Record]]:
    """Records by call of QEMU's to send pages: the same whether the file is mapped or read."""
    mapped, read = (_calls_of(data, dialect, capacity_bytes, still=it) for it in (True, False))
    assert mapped == read
    return mapped


def _calls_of(
    data: bytes, dialect: str | None, capacity_bytes: int, *, still: bool
) -> list[list[Record]]:
    calls: list[list[Record]] = []
    with opened(data, still=still) as file:
        named = Dialect(dialect) if dialect else None
        reader = StreamReader(file, "test", named, capacity_bytes)
        for event in reader:
            if isinstance(event, Call) and event.section != Section.START:
                calls.append([])
            elif isinstance(event, Batch):
                calls[-1] += records_of(reader, event)
    return calls


def records_of(reader: StreamReader, batch: Batch) -> list[Record]:
    columns = (batch.kinds, batch.blocks, batch.pages, batch.sizes)
    return [
        Record(KIND_NAMES[kind], reader.blocks[block].name, page, size)
        for kind, block, page, size in zip(*(it.tolist() for it in columns), strict=True)
    ]
