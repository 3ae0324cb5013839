"""KVM_CSV_COMMAND_BATCH: on Hygon's hosts only, all nodes or none."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from fakekvm import host_named
from tests.fakekvm import sevraw
from tests.fakekvm.raw import PAGE, Buffer
from tests.fakekvm.sevraw import BAD_MEASUREMENT, HDR, INVALID_STATE, OK, UNASKED, Machine, SevGuest

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@pytest.fixture
def hygon() -> Iterator[Machine]:
    with Machine(host_named("csv")) as machine:
        yield machine


class Batch:
    """A list of packets, and memory for all of it."""

    def __init__(self, guest: SevGuest, pages: Sequence[int], **odd: int) -> None:
        self.rooms = [(Buffer(bytes(HDR)), Buffer(bytes(PAGE))) for _ in pages]
        packets = [
            sevraw.packet(guest.address(page), room)
            for page, room in zip(pages, self.rooms, strict=True)
        ]
        if odd:
            packets[-1] = sevraw.packet(guest.address(pages[-1]), self.rooms[-1], **odd)
        self._packets = packets
        self._nodes = nodes = [Buffer(bytes(24)) for _ in pages]
        following = [node.address for node in nodes[1:]] + [0] * bool(nodes)
        for node, data, then in zip(nodes, packets, following, strict=True):
            node._data.raw = struct.pack("<QQQ", data.address, 0, then)
        self.first = nodes[0].address if nodes else 0

    def issue(self, guest: SevGuest, command: int) -> sevraw.Answer:
        return guest.issue(sevraw.BATCH, Buffer(struct.pack("<IIQ", command, 0, self.first)))

    def contents(self) -> list[bytes]:
        return [trans.bytes for _hdr, trans in self.rooms]


def test_many_pages_go_in_one_command(hygon: Machine) -> None:
    source, target = sevraw.session(hygon)
    batch = Batch(source, [2, 0, 3])
    assert batch.issue(source, sevraw.SEND_UPDATE) == OK
    arriving = Batch(target, [2, 0, 3])
    for (hdr, trans), (hdr2, trans2) in zip(batch.rooms, arriving.rooms, strict=True):
        hdr2._data.raw, trans2._data.raw = hdr.bytes, trans.bytes
    assert arriving.issue(target, sevraw.RECEIVE_UPDATE) == OK
    assert [target.view(page) for page in (2, 0, 3)] == [source.view(page) for page in (2, 0, 3)]
    assert target.view(1) != source.view(1)


def test_packets_of_a_batch_are_ordinary_ones(hygon: Machine) -> None:
    source, target = sevraw.session(hygon)
    batch = Batch(source, [1])
    assert batch.issue(source, sevraw.SEND_UPDATE) == OK
    ((hdr, trans),) = batch.rooms
    assert target.receive(sevraw.Wire(hdr.bytes, trans.bytes), 1) == OK


@pytest.mark.parametrize(
    "odd", [{"guest_len": 0}, {"hdr_len": 0}, {"guest_uaddr": 0x1000}, {"guest_len": PAGE + 16}]
)
def test_whatever_is_wrong_with_a_node_is_efault(hygon: Machine, odd: dict[str, int]) -> None:
    source, _target = sevraw.session(hygon)
    batch = Batch(source, [0, 1], **odd)
    assert batch.issue(source, sevraw.SEND_UPDATE) == ("EFAULT", UNASKED)
    assert batch.contents() == [bytes(PAGE)] * 2


def test_a_batch_that_the_firmware_refuses_gives_nothing(hygon: Machine) -> None:
    source, target = sevraw.session(hygon)
    empty = Batch(target, [0])
    assert empty.issue(target, sevraw.RECEIVE_UPDATE) == BAD_MEASUREMENT
    batch = Batch(target, [0, 1])
    assert batch.issue(target, sevraw.SEND_UPDATE) == INVALID_STATE
    assert batch.contents() == [bytes(PAGE)] * 2
    assert source.state() == sevraw.SENDING


def test_commands_that_cannot_be_batched_and_lists_without_nodes(hygon: Machine) -> None:
    source, _target = sevraw.session(hygon)
    assert Batch(source, [0]).issue(source, sevraw.SEND_FINISH) == ("EINVAL", UNASKED)
    assert Batch(source, []).issue(source, sevraw.SEND_FINISH) == (0, UNASKED)
    assert SevGuest(hygon).issue(sevraw.BATCH, Buffer(bytes(16)))[0] == "ENOTTY"


def test_a_list_longer_than_the_ring_is_refused_even_without_an_end(hygon: Machine) -> None:
    source, _target = sevraw.session(hygon)
    batch = Batch(source, [0])
    node = batch._nodes[0]
    struct.pack_into("<Q", node._data, 16, node.address)
    assert batch.issue(source, sevraw.SEND_UPDATE) == ("EFAULT", UNASKED)


def test_other_hosts_do_not_know_it() -> None:
    with Machine() as machine:
        source, _target = sevraw.session(machine)
        assert Batch(source, [0]).issue(source, sevraw.SEND_UPDATE) == ("EINVAL", UNASKED)
