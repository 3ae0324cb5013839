"""Files that are mapped: while they are, nobody changes them; who wants to gets his way soon."""

from __future__ import annotations

import mmap
import os
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import StreamError
from kvmenc.stream import Batch, StreamReader
from kvmenc.stream.still import StillFile
from tests.stream.raw import PAGE, Ram, call, head
from tests.stream.reading import SMALL_BYTES, opened

if TYPE_CHECKING:
    from io import RawIOBase

PAGES = 250


def stream() -> bytes:
    """Several times what a small window holds."""
    ram = Ram()
    for page in range(PAGES):
        ram.page("normal", "pc.ram", page, page)
    return head() + call(ram.take(), last=True) + b"\0"


def wants_to_write(file: RawIOBase) -> bool:
    """Whether somebody who would change the file is kept off; the kernel asks for the lease."""
    try:
        os.close(os.open(f"/proc/self/fd/{file.fileno()}", os.O_WRONLY | os.O_NONBLOCK))
    except BlockingIOError:
        return True
    return False


def pages_of(reader: StreamReader) -> list[int]:
    """What each page of it is filled with."""
    found = []
    for it in reader:
        if isinstance(it, Batch):
            found += it.view[it.starts + it.sizes - 1].tolist()
    return found


def test_a_writer_is_kept_off_until_the_reader_has_noticed() -> None:
    expected = [page % 256 for page in range(PAGES)]
    with opened(stream()) as file:
        reader = StreamReader(file, "test", capacity_bytes=SMALL_BYTES)
        assert wants_to_write(file)
        assert pages_of(reader) == expected
        assert not wants_to_write(file)


def test_a_file_is_free_again_when_it_was_read() -> None:
    with opened(stream()) as file:
        assert len(pages_of(StreamReader(file, "test"))) == PAGES
        assert not wants_to_write(file)


def test_a_file_that_shrinks_meanwhile_is_refused_and_kills_nobody() -> None:
    data = stream()
    with opened(data) as file:
        reader = StreamReader(file, "test", capacity_bytes=SMALL_BYTES)
        assert wants_to_write(file)
        batches = (it for it in reader if isinstance(it, Batch))
        seen = next(batches).pages.size + next(batches).pages.size
        while wants_to_write(file):
            seen += next(batches).pages.size
        os.truncate(f"/proc/self/fd/{file.fileno()}", len(data) - 50 * PAGE)
        with pytest.raises(StreamError, match="the file ends"):
            seen += sum(it.pages.size for it in batches)
        assert 0 < seen < PAGES


def test_what_others_write_or_what_is_no_file_is_not_mapped() -> None:
    with opened(stream(), still=False) as file, pytest.raises(OSError, match="unavailable"):
        StillFile(file)
    read, write = os.pipe()
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as pipe, pytest.raises(OSError, match="Invalid"):
        StillFile(pipe)


def test_a_piece_that_cannot_be_had_is_an_error() -> None:
    with opened(bytes(2 * mmap.ALLOCATIONGRANULARITY)) as file:
        still = StillFile(file)
        piece = still.piece(mmap.ALLOCATIONGRANULARITY, 1 << 20)
        assert len(piece) == mmap.ALLOCATIONGRANULARITY
        assert wants_to_write(file)
        with pytest.raises(InterruptedError):
            still.piece(0, 1 << 20)
        still.release()
        assert not wants_to_write(file)
