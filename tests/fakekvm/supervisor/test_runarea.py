"""What a kvm_run page is taken to announce, and when."""

from __future__ import annotations

import mmap
import os
import struct
from typing import TYPE_CHECKING

import pytest

from fakekvm.supervisor.runarea import RunArea

if TYPE_CHECKING:
    from collections.abc import Iterator

EXIT_REASON, UNION, VALID, DIRTY, REGS, RFLAGS = 8, 32, 288, 296, 304, 304 + 17 * 8
IO, HYPERCALL = 2, 3


class Page:
    """A vCPU's, as the kernel and its program see it."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("page")
        os.ftruncate(self.fd, 4096)
        self.bytes = mmap.mmap(self.fd, 4096)
        self.area = RunArea(self.fd, 0x99)

    def put(self, offset: int, form: str, *values: int) -> None:
        struct.pack_into(form, self.bytes, offset, *values)

    def get(self, offset: int) -> int:
        return int(struct.unpack_from("<Q", self.bytes, offset)[0])

    def port_exit(self, port: int = 0x99, direction: int = 1) -> None:
        self.put(EXIT_REASON, "<I", IO)
        self.put(UNION, "<BBH", direction, 1, port)
        self.put(REGS, "<18Q", 7, 0x5000, 3, 16, *[0] * 13, 2)


@pytest.fixture
def page() -> Iterator[Page]:
    made = Page()
    yield made
    made.area.close()


def test_a_port_exit_is_taken_once(page: Page) -> None:
    page.area.arm()
    page.port_exit()
    assert page.area.take() == (0x5000, 3, 16)
    assert page.area.take() is None
    page.area.arm()
    assert page.area.take() is None, "the vCPU runs again: that exit is over"
    page.port_exit()
    assert page.area.take() == (0x5000, 3, 16)


def test_not_before_its_registers_are_there(page: Page) -> None:
    page.area.arm()
    assert page.get(VALID) == 1
    page.port_exit()
    page.put(RFLAGS, "<Q", 0)
    assert page.area.take() is None
    page.put(RFLAGS, "<Q", 2)
    assert page.area.take() == (0x5000, 3, 16)


@pytest.mark.parametrize(("port", "direction"), [(0x98, 1), (0x99, 0)])
def test_other_ports_and_reads_are_none(page: Page, port: int, direction: int) -> None:
    page.area.arm()
    page.port_exit(port, direction)
    assert page.area.take() is None
    page.area.arm()
    assert page.get(EXIT_REASON) & 0xFFFFFFFF == IO, "it is the program's"


@pytest.mark.parametrize(("number", "expected"), [(12, (0x7000, 2, 0)), (11, None)])
def test_a_hypercall_exit(page: Page, number: int, expected: object) -> None:
    page.area.arm()
    page.put(EXIT_REASON, "<I", HYPERCALL)
    page.put(UNION, "<Q6Q", number, 0x7000, 2, 0, 0, 0, 0)
    page.put(RFLAGS, "<Q", 2)
    assert page.area.take() == expected


def test_registers_that_the_program_sets_are_left_alone(page: Page) -> None:
    page.put(RFLAGS, "<Q", 0x202)
    page.put(DIRTY, "<Q", 1)
    page.put(VALID, "<Q", 4)
    page.area.arm()
    assert (page.get(RFLAGS), page.get(VALID)) == (0x202, 5)


def test_before_its_first_run_it_tells_nothing(page: Page) -> None:
    page.port_exit()
    assert page.area.take() is None
