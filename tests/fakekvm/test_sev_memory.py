"""Memory in the clear, what a launch measures, and reading ahead."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakekvm import host_named
from tests.fakekvm import sevraw
from tests.fakekvm.raw import PAGE, Buffer
from tests.fakekvm.sevraw import HDR, OK, PACKET, Machine, SevGuest, Wire, filled, session

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_memory_in_the_clear_is_encrypted_for_the_way_all_the_same() -> None:
    with Machine(replace(host_named("sev"), clear_memory=True)) as machine:
        source, target = session(machine)
        content = source.bytes_at(2)
        assert content == source.view(2) == list(sevraw.pages(3))[2]
        wire = source.sent(2)
        assert wire.trans != content
        assert target.receive(wire, 1) == OK
        assert target.bytes_at(1) == content
        assert target.receive(wire.flipped(99), 1) == sevraw.BAD_MEASUREMENT


def measured(content: bytes, policy: int) -> bytes:
    with Machine() as machine:
        guest = SevGuest(machine).init()
        guest.write(0, content)
        assert [guest.launch_start(policy), guest.launch_update()] == [OK, OK]
        blob = Buffer(bytes(48))
        data = Buffer(struct.pack("<QII", blob.address, 48, 0))
        assert guest.issue(sevraw.LAUNCH_MEASURE, data) == OK
        return blob.bytes


def test_a_launch_is_measured_over_contents_and_policy() -> None:
    same = measured(b"firmware", 0)
    assert measured(b"firmware", 0) == same
    assert measured(b"firmwarf", 0)[:32] != same[:32]
    assert measured(b"firmware", 1)[:32] != same[:32]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 2, 1, 0], [0, 0, 3, 1]])
def test_what_was_read_ahead_is_what_lies_there_when_the_command_comes(order: list[int]) -> None:
    with Machine() as machine:
        source, target = session(machine)
        for number, page in enumerate(order):
            source.write(page, bytes([number]) * 4096)
            assert target.receive(source.sent(page), page) == OK
            assert target.view(page) == source.view(page)


class Rows:
    """Structs, headers and contents, each an array with room for some pages."""

    def __init__(self, count: int) -> None:
        self.args, self.hdrs = Buffer(bytes(48 * count)), Buffer(bytes(HDR * count))
        self.contents = Buffer(bytes(PAGE * count))

    def at(self, struct_row: int, row: int, guest_at: int, size: int) -> int:
        """The struct of a row, filled in."""
        hdr_at, trans_at = self.hdrs.address + row * HDR, self.contents.address + row * PAGE
        fields = hdr_at, HDR, guest_at, size, trans_at, PAGE
        self.args.put(48 * struct_row, PACKET.pack(*fields))
        return self.args.address + 48 * struct_row

    def wire(self, row: int) -> Wire:
        hdrs, contents = self.hdrs.bytes, self.contents.bytes
        return Wire(hdrs[row * HDR :][:HDR], contents[row * PAGE :][:PAGE])

    def fill(self, row: int, wire: Wire) -> None:
        self.hdrs.put(row * HDR, wire.hdr)
        self.contents.put(row * PAGE, wire.trans)


class Command(NamedTuple):
    page: int
    struct_row: int
    row: int
    size: int


_ROWS = 5
_COMMANDS = st.builds(
    Command,
    st.integers(0, 3),
    st.integers(0, _ROWS - 1),
    st.integers(0, _ROWS - 1),
    st.sampled_from([PAGE, PAGE, PAGE, 64]),
)
_STRIDES = st.builds(
    lambda first, step: [
        first._replace(
            page=(first.page + number * step.page) % 4,
            struct_row=(first.struct_row + number * step.struct_row) % _ROWS,
            row=(first.row + number * step.row) % _ROWS,
        )
        for number in range(4)
    ],
    _COMMANDS,
    _COMMANDS,
)


def contents() -> Iterator[bytes]:
    """Each tells a command from all others."""
    number = 0
    while True:
        number += 1
        yield struct.pack("<I", number) * (PAGE // 4)


@given(st.lists(_STRIDES | st.lists(_COMMANDS, max_size=3), max_size=6))
def test_whatever_is_guessed_a_command_takes_what_lies_there(runs: list[list[Command]]) -> None:
    """Structs and buffers used again, one after the other of an array, or in any order."""
    with Machine() as machine:
        source, target = session(machine)
        sending, receiving, content = Rows(_ROWS), Rows(_ROWS), contents()
        for page, struct_row, row, size in (it for run in runs for it in run):
            source.write(page, next(content))
            at = sending.at(struct_row, row, source.address(page), size)
            assert source.issue(sevraw.SEND_UPDATE, at) == OK
            receiving.fill(row, sending.wire(row))
            at = receiving.at(struct_row, row, target.address(page), size)
            assert target.issue(sevraw.RECEIVE_UPDATE, at) == OK
            assert target.view(page)[:size] == source.view(page)[:size]


def test_a_page_after_the_last_one_that_is_not_there_is_no_trouble() -> None:
    with Machine() as machine:
        source, _target = session(machine)
        source.area.unmap(2, 2)
        assert isinstance(source.send(0), sevraw.Wire)
        assert isinstance(source.send(1), sevraw.Wire)
        assert source.send(2)[0] == "ENOMEM"
        assert filled(machine).state() == sevraw.RUNNING
