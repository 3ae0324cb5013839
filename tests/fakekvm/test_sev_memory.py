"""Memory in the clear, what a launch measures, and reading ahead."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from fakekvm import host_named
from tests.fakekvm import sevraw
from tests.fakekvm.raw import Buffer
from tests.fakekvm.sevraw import OK, Machine, SevGuest, filled, session


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


def test_a_page_after_the_last_one_that_is_not_there_is_no_trouble() -> None:
    with Machine() as machine:
        source, _target = session(machine)
        source.area.unmap(2, 2)
        assert isinstance(source.send(0), sevraw.Wire)
        assert isinstance(source.send(1), sevraw.Wire)
        assert source.send(2)[0] == "ENOMEM"
        assert filled(machine).state() == sevraw.RUNNING
