from __future__ import annotations

import errno
import os

import numpy as np
import pytest

from fakekvm.processmemory import IOV_MAX, ProcessMemory
from tests.fakekvm.raw import PAGE, Area, Buffer

MEMORY = ProcessMemory(os.getpid())
BAD = [0, 8, 1 << 46, 1 << 63, (1 << 64) - 8]


@pytest.mark.parametrize("size", [1, 8, 512, 513, 5000])
def test_what_is_written_is_read(size: int) -> None:
    buffer = Buffer(bytes(size + 1))
    data = bytes(i % 251 for i in range(size))
    MEMORY.write(buffer.address, data)
    assert buffer.bytes == data + b"\0"
    assert MEMORY.read(buffer.address, size) == data


def test_arrays_go_in_and_out() -> None:
    buffer = Buffer(bytes(80))
    MEMORY.write_array(buffer.address, np.arange(10, dtype="<u8"))
    out = np.zeros(10, "<u8")
    MEMORY.read_array(buffer.address, out)
    assert out.tolist() == list(range(10))


def test_nothing_is_touched_for_a_size_of_zero() -> None:
    assert MEMORY.read(0, 0) == b""
    MEMORY.write(0, b"")


@pytest.mark.parametrize("address", BAD)
@pytest.mark.parametrize("size", [8, 4096])
def test_a_bad_address_is_efault_and_not_a_crash(address: int, size: int) -> None:
    for access in (
        lambda: MEMORY.read(address, size),
        lambda: MEMORY.write(address, bytes(size)),
        lambda: MEMORY.write_words(np.array([address], np.uint64), 1),
    ):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno follows
            access()
        assert caught.value.errno == errno.EFAULT


def test_a_hole_in_the_middle_is_efault_and_what_came_before_is_stored() -> None:
    area = Area(3)
    area.unmap(1, 1)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        MEMORY.write(area.address + PAGE - 8, bytes([7]) * 16)
    assert caught.value.errno == errno.EFAULT
    assert area.map[PAGE - 8 : PAGE] == bytes([7]) * 8


def test_words_go_to_their_addresses_the_last_of_a_repeat_wins() -> None:
    area = Area(IOV_MAX)
    pages = np.arange(IOV_MAX, dtype=np.uint64)
    MEMORY.write_words(area.address + pages * PAGE, -2)
    assert {area.word(page) for page in range(IOV_MAX)} == {(1 << 64) - 2}
    assert area.map[8:PAGE] == bytes(PAGE - 8)


def test_a_process_that_is_gone_has_no_memory() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(OSError) as caught:  # noqa: PT011
        ProcessMemory(pid).read(Buffer(b"x").address, 1)
    assert caught.value.errno == errno.EFAULT
