"""When a file of the fake counts as closed."""

from __future__ import annotations

import array
import mmap
import os
import socket
from typing import TYPE_CHECKING, cast

import pytest

from fakekvm.calls import File
from fakekvm.runpage import RunPage
from fakekvm.supervisor.files import Files

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakekvm.calls import Services


class Plain(File):
    kind = "plain"

    def __init__(self, fd: int | None = None) -> None:
        super().__init__(cast("Services", None))
        self.fd = fd
        self.closings = 0

    def closed(self) -> None:
        self.closings += 1


@pytest.fixture
def files() -> Iterator[Files]:
    made = Files()
    yield made
    made.close_all()


def test_a_file_is_found_by_any_descriptor(files: Files) -> None:
    first, second = Plain(), Plain()
    fd, other = files.give(first), files.give(second)
    copy = os.dup(fd)
    assert files.find(os.fstat(fd)) is files.find(os.fstat(copy)) is first
    assert files.find(os.fstat(other)) is second
    assert files.find(os.fstat(0)) is None
    for one in (fd, other, copy):
        os.close(one)


def test_it_is_closed_with_its_last_descriptor(files: Files) -> None:
    file = Plain()
    fd = files.give(file)
    copy = os.dup(fd)
    os.close(fd)
    assert files.sweep() == []
    assert files.find(os.fstat(copy)) is file
    os.close(copy)
    assert files.sweep() == [file]
    assert files.sweep() == []
    assert file.closings == 1


def test_a_descriptor_on_its_way_holds_it(files: Files) -> None:
    file = Plain()
    fd = files.give(file)
    here, there = socket.socketpair()
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))
    here.sendmsg([b"x"], [rights])
    os.close(fd)
    assert files.sweep() == []
    there.close()
    here.close()
    assert files.sweep() == [file]


def test_another_process_holds_it(files: Files) -> None:
    file = Plain()
    fd = files.give(file)
    out, into = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(into)
        os.read(out, 1)
        os._exit(0)
    os.close(fd)
    assert files.sweep() == []
    os.close(into)
    os.close(out)
    os.waitpid(pid, 0)
    assert files.sweep() == [file]


def test_a_mapping_holds_it(files: Files) -> None:
    page = RunPage("test", 0)
    file = Plain(page.fd)
    fd = files.give(file)
    area = mmap.mmap(fd, 4096)
    os.close(fd)
    page.exit(5)
    assert files.sweep() == []
    assert area[8] == 5
    area.close()
    assert files.sweep() == [file]


def test_a_holder_cannot_cut_a_vcpus_pages(files: Files) -> None:
    page = RunPage("test", 0)
    fd = files.give(Plain(page.fd))
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    assert not page.wants_exit()
    os.close(fd)
