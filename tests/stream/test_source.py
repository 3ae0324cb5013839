"""What is read, not mapped: pieces are large, and nobody is waited for in vain."""

from __future__ import annotations

import os
import threading
from io import BytesIO
from typing import TYPE_CHECKING, cast

import pytest

from kvmenc.stream.source import Source

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase

_ROOM_BYTES = 4 << 20


@pytest.fixture
def pipe() -> Iterator[tuple[RawIOBase, int]]:
    read, write = os.pipe()
    with os.fdopen(read, "rb", buffering=0) as file:
        yield file, write


def send(write: int, content: bytes, *, end: bool) -> threading.Thread:
    def all_of_it() -> None:
        left = memoryview(content)
        while left:
            left = left[os.write(write, left) :]
        if end:
            os.close(write)

    thread = threading.Thread(target=all_of_it)
    thread.start()
    return thread


def test_a_pipe_gives_a_piece_that_is_larger_than_itself(pipe: tuple[RawIOBase, int]) -> None:
    file, write = pipe
    content = os.urandom(3 << 20)
    source, room = Source(file), bytearray(_ROOM_BYTES)
    thread = send(write, content, end=True)
    came = source.read_into(memoryview(room))
    while more := source.read_into(memoryview(room)[came:]):  # a busy machine makes it pause
        came += more
    thread.join()
    assert bytes(room[:came]) == content


def test_who_keeps_a_pipe_open_is_not_waited_for(pipe: tuple[RawIOBase, int]) -> None:
    file, write = pipe
    send(write, b"some", end=False).join()
    room = bytearray(_ROOM_BYTES)
    assert Source(file).read_into(memoryview(room)) == 4
    os.close(write)


def test_a_piece_is_no_larger_than_the_room_for_it(pipe: tuple[RawIOBase, int]) -> None:
    file, write = pipe
    source = Source(file)
    send(write, b"123456", end=True).join()
    room = bytearray(4)
    assert (source.read_into(memoryview(room)), bytes(room)) == (4, b"1234")
    assert (source.read_into(memoryview(room)), bytes(room)) == (2, b"5634")
    assert source.read_into(memoryview(room)) == 0


def test_what_has_no_descriptor_is_read_too() -> None:
    source, room = Source(cast("RawIOBase", BytesIO(b"bytes"))), bytearray(8)
    assert [source.read_into(memoryview(room)) for _ in range(2)] == [5, 0]
