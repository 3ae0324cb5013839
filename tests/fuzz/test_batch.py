"""KVM_CSV_COMMAND_BATCH of any list: with loops, wild addresses, packets that are none."""

from __future__ import annotations

import struct
import tracemalloc
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from fakekvm import host_named, sevbatch
from tests.fakekvm import sevraw
from tests.fakekvm.raw import PAGE
from tests.fakekvm.sevraw import BAD_MEASUREMENT, HDR, OK, PACKET, Machine
from tests.fuzz.arena import Arena
from tests.fuzz.firmware import (
    GUEST,
    ROOMS,
    Fields,
    Session,
    firmware_refusal,
    named,
    refusal,
    unasked,
)
from tests.fuzz.inputs import each

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from tests.fakekvm.sevraw import Answer

#: A short ring, so that a loop is soon found to be one.
RING = 16
NODES, PACKETS = 6, 4
NODES_AT, PACKETS_AT = PAGE, PAGE + 1024


@pytest.fixture
def session(monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    monkeypatch.setattr(sevbatch, "_POOL_PAGES", RING)
    with Arena() as arena, Machine(host_named("csv")) as machine:
        yield Session.begin(machine, arena)


@dataclass
class Lists:
    """Nodes and packets in the arena, as somebody means them or not."""

    arena: Arena

    def put(self, rng: random.Random, packets: list[Fields]) -> int:
        """A list, of which some links lead elsewhere; returns where it begins."""
        arena, nodes = self.arena, [self._node(number) for number in range(NODES)]
        for number, packet in enumerate(packets):
            arena.put(PACKETS_AT + number * 48, packet.packed())
        for number, address in enumerate(nodes):
            data = arena.address + PACKETS_AT + rng.randrange(PACKETS) * 48
            then = nodes[number + 1] if number + 1 < NODES else 0
            if rng.randrange(8) == 0:
                data = arena.somewhere(rng)
            if rng.randrange(4) == 0:
                then = rng.choice((*nodes, 0, 0, 0, arena.somewhere(rng)))
            arena.put(address - arena.address, struct.pack("<QQQ", data, 0, then))
        return rng.choice((*nodes, *nodes, 0, arena.somewhere(rng)))

    def _node(self, number: int) -> int:
        return self.arena.address + NODES_AT + number * 24

    def walked(self, address: int, *, sending: bool) -> list[Fields] | None:
        """The packets; None: the kernel refuses the list."""
        packets: list[Fields] = []
        while address:
            node = self.arena.at(address, 24)
            if node is None or len(packets) == RING:
                return None
            if sum(it.trans_len for it in packets) >= RING * PAGE:
                return None
            data, _, address = struct.unpack("<QQQ", node)
            packed = self.arena.at(data, 48)
            if packed is None:
                return None
            packet = Fields(*PACKET.unpack(packed))
            packets.append(packet)
            odd = refusal(packet, self.arena, sending=sending)
            if max(packet.hdr_len, packet.trans_len) > 1 << 22 or (odd and odd[0] != "EIO"):
                return None
        return packets


def test_any_list_is_carried_out_to_its_first_bad_packet_or_refused(session: Session) -> None:
    """Sending gives all or nothing; what was received before a bad packet stays."""
    arena, lists = session.arena, Lists(session.arena)

    def one(rng: random.Random) -> str:
        arena.begin()
        sending = rng.random() < 0.5
        guest = session.source if sending else session.target
        packets = [session.packet(rng, guest) for _ in range(PACKETS)]
        if rng.randrange(4) == 0:
            arena.map[packets[0].hdr_uaddr - arena.address + rng.randrange(HDR)] ^= 1
        if rng.randrange(2):
            packets[0] = packets[0].spoilt(rng, arena)
        start = lists.put(rng, packets)
        number = sevraw.SEND_UPDATE if sending else sevraw.RECEIVE_UPDATE
        walked = lists.walked(start, sending=sending)
        answer, written = _expected(session, walked, sending=sending) if start else ((0, None), [])
        data = struct.pack("<IIQ", number, 0, start)
        before = arena.content
        got = session.issue(guest, sevraw.BATCH, data)
        if start and answer == OK and sending:
            assert got in (OK, ("EFAULT", 0)), "a room may be nowhere"
            return named(got)
        assert got == (answer if start else unasked_done())
        pages = {(it.guest_uaddr - arena.address) // PAGE for it in written}
        assert set(arena.changed(before)) <= {0} | pages
        return named(got)

    each("batches", one, {"done", "EFAULT"})


def unasked_done() -> Answer:
    """An empty list."""
    return 0, sevraw.UNASKED


def _expected(
    session: Session, packets: list[Fields] | None, *, sending: bool
) -> tuple[Answer, list[Fields]]:
    """The answer, and the packets that arrive."""
    if packets is None:
        return unasked("EFAULT"), []
    for number, it in enumerate(packets):
        odd = firmware_refusal(it)
        if not odd and not sending and session.plain(it) is None:
            odd = BAD_MEASUREMENT
        if odd:
            return odd, [] if sending else packets[:number]
    return OK, [] if sending else packets


def test_a_batch_holds_no_more_than_its_pool(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's pool is of 4094 pages in all, whatever each packet asks for."""
    monkeypatch.setattr(sevbatch, "_POOL_PAGES", 4094)
    arena, nodes = session.arena, 12
    hdr = arena.page(ROOMS)
    packet = Fields(hdr, HDR, arena.page(GUEST), PAGE, hdr + PAGE, 1 << 22)
    arena.put(PACKETS_AT, packet.packed())
    for number in range(nodes):
        at = NODES_AT + number * 24
        then = arena.address + at + 24 if number + 1 < nodes else 0
        arena.put(at, struct.pack("<QQQ", arena.address + PACKETS_AT, 0, then))
    data = struct.pack("<IIQ", sevraw.SEND_UPDATE, 0, arena.address + NODES_AT)
    tracemalloc.start()
    try:
        session.issue(session.source, sevraw.BATCH, data)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
