"""Any packet, session, certificate and list that the fake firmware is given: refused by name.

Whatever was refused has changed nothing, and nothing but an errno or a firmware's code comes back.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from fakekvm import host_named
from fakekvm.sevcerts import Chip
from tests.fakekvm import sevraw
from tests.fakekvm.raw import PAGE
from tests.fakekvm.sevraw import (
    BAD_MEASUREMENT,
    HDR,
    INVALID_CERTIFICATE,
    INVALID_LEN,
    OK,
    Machine,
    SevGuest,
)
from tests.fuzz.arena import NPAGES, Arena
from tests.fuzz.firmware import GUEST, ROOMS, Blobs, Fields, Session, named, refusal, unasked
from tests.fuzz.inputs import each

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator


@pytest.fixture
def session() -> Iterator[Session]:
    with Arena() as arena, Machine(host_named("csv")) as machine:
        yield Session.begin(machine, arena)


def test_a_packet_is_received_as_it_was_sent_or_refused_by_name(session: Session) -> None:
    """Contents and headers have a bit changed, or are another packet's, or shorter, or longer."""
    arena, target = session.arena, session.target

    def one(rng: random.Random) -> str:
        arena.begin()
        packet = session.packet(rng, target)
        if rng.randrange(3) == 0:
            place = rng.choice((packet.hdr_uaddr, packet.trans_uaddr)) - arena.address
            at = place + rng.randrange(rng.choice((HDR, PAGE)))
            arena.put(at, bytes([arena.map[at] ^ 1 << rng.randrange(8)]))
        packet = packet.spoilt(rng, arena)
        answer, plain = session.receives(packet)
        arena_before = arena.content
        assert session.issue(target, sevraw.RECEIVE_UPDATE, packet.packed()) == answer
        if answer == OK:
            view = session.machine.kernel.guest_view(target.vm, packet.guest_uaddr, len(plain))
            assert view == plain
        else:
            assert arena.content[PAGE:] == arena_before[PAGE:], "nothing is written"
        return named(answer)

    each("packets received", one, {"done", "BAD_MEASUREMENT"})


def test_a_packet_is_sent_whole_or_not_at_all(session: Session) -> None:
    """What was sent arrives; a question for lengths changes the struct alone."""
    arena, source = session.arena, session.source

    def one(rng: random.Random) -> str:
        arena.begin()
        packet = session.packet(rng, source).spoilt(rng, arena)
        answer = session.issue(source, sevraw.SEND_UPDATE, packet.packed())
        if not packet.hdr_len or not packet.trans_len:
            told = packet._replace(hdr_len=HDR, trans_len=0).packed()
            assert (answer, bytes(arena.map[512 : 512 + len(told)])) == (INVALID_LEN, told)
        elif odd := refusal(packet, arena, sending=True):
            assert answer == odd
        elif not _rooms_are_there(packet, arena):
            assert answer == ("EFAULT", 0)
            return named(answer)
        else:
            assert answer == OK
            _arrives(session, packet)
            return named(answer)
        assert arena.changed() in ([], [0]), "nothing is written but the command"
        return named(answer)

    each("packets sent", one, {"done", "INVALID_LEN"})


def _rooms_are_there(packet: Fields, arena: Arena) -> bool:
    trans = arena.holds(packet.trans_uaddr, packet.trans_len)
    return trans and arena.holds(packet.hdr_uaddr, packet.hdr_len)


def _arrives(session: Session, sent: Fields) -> None:
    """Unless one room lies over the other."""
    trans = range(sent.trans_uaddr, sent.trans_uaddr + sent.trans_len)
    if sent.hdr_uaddr + sent.hdr_len > trans.start and sent.hdr_uaddr < trans.stop:
        return
    arena, target, kernel = session.arena, session.target, session.machine.kernel
    wire = arena.at(sent.hdr_uaddr, HDR), arena.at(sent.trans_uaddr, sent.trans_len)
    if sent.trans_len > 0x4000:
        return  # more than RECEIVE_UPDATE_DATA takes
    arena.begin()
    plain = kernel.guest_view(session.source.vm, sent.guest_uaddr, sent.guest_len)
    arena.put(ROOMS * PAGE, wire[0] or b"")
    arena.put((ROOMS + 1) * PAGE, wire[1] or b"")
    hdr, page = arena.page(ROOMS), target.address(3)
    packet = Fields(hdr, HDR, page, sent.guest_len, hdr + PAGE, sent.trans_len)
    assert session.issue(target, sevraw.RECEIVE_UPDATE, packet.packed()) == OK
    assert kernel.guest_view(target.vm, page, sent.guest_len) == plain


def test_a_session_begins_under_the_certificates_of_its_target_or_not(session: Session) -> None:
    arena, source = session.arena, session.source
    assert source.issue(sevraw.SEND_CANCEL) == OK
    blobs = Chip("chip 0").certificates()

    def one(rng: random.Random) -> str:
        arena.begin()
        it = Blobs(arena, *blobs)
        it.spoil(rng)
        room = arena.page(NPAGES - 1), rng.choice((127, 128, 128, 128, 129, 4096, 0x4001))
        fields = [value for place in (*it.places, room) for value in (*place, 0)]
        answer = session.issue(
            source, sevraw.SEND_START, struct.pack("<II" + "QII" * 4, 0, 0, *fields)
        )
        if not all(it.places[0]) or room[1] > 0x4000:
            assert answer == unasked("EINVAL")
        elif odd := it.refusal():
            assert answer == odd
        elif room[1] < sevraw.SESSION:
            assert answer == INVALID_LEN
        else:
            assert answer == (OK if it.are_sound else INVALID_CERTIFICATE)
        assert source.state() == (sevraw.SENDING if answer == OK else sevraw.RUNNING)
        if answer == OK:
            assert source.issue(sevraw.SEND_CANCEL) == OK
        else:
            assert all(page in (0, *_BLOBS) for page in arena.changed()), "no guest, no room"
        return named(answer)

    each("certificates sent to", one, {"done", "INVALID_CERTIFICATE"})


_BLOBS = range(GUEST + 8, NPAGES - 1)


def test_a_session_is_received_as_it_was_sent_or_refused_by_name(session: Session) -> None:
    """Of the certificate only the key counts, and that it is one; AMD's checks no more of it."""
    arena, machine = session.arena, session.machine
    assert session.source.issue(sevraw.SEND_CANCEL) == OK
    answer, sent = session.source.send_start()
    assert answer == OK
    pdh = Chip("chip 0").certificates().pdh
    key = slice(16, 48)
    targets = [SevGuest(machine).init()]

    def one(rng: random.Random) -> str:
        arena.begin()
        it = Blobs(arena, pdh, sent)
        it.spoil(rng)
        policy = rng.choice((0, 0, 0, 1, 1 << 31))
        places = [value for place in it.places for value in (*place, 0)]
        struct_ = struct.pack("<IIQIIQII", rng.choice((0, 0, 0, 99)), policy, *places)
        answer = session.issue(targets[0], sevraw.RECEIVE_START, struct_)
        cert, blob = (arena.at(*place) or b"" for place in it.places)
        if odd := it.refusal():
            assert answer == odd
        elif len(cert) != len(pdh) or cert[8:12] != pdh[8:12]:
            assert answer == INVALID_CERTIFICATE
        elif len(blob) < sevraw.SESSION:
            assert answer == INVALID_LEN
        elif cert[key] != pdh[key] or blob[: len(sent)] != sent or policy:
            assert answer == BAD_MEASUREMENT
        else:
            assert answer in (OK, ("EIO", 0x10)), "a handle that is none is refused at last"
        if answer == OK:
            targets[0].machine.close(targets[0].vm)
            targets[0] = SevGuest(machine).init()
        assert all(page in (0, *_BLOBS) for page in arena.changed())
        return named(answer)

    each("sessions received", one, {"done", "BAD_MEASUREMENT"})


def test_an_address_in_the_last_page_is_an_errno_now_and_in_the_next_command(
    session: Session,
) -> None:
    packet = Fields(session.arena.page(ROOMS), HDR, 2**64 - PAGE, 16, session.arena.page(3), PAGE)
    for _ in range(2):
        answer = session.issue(session.source, sevraw.SEND_UPDATE, packet.packed())
        assert answer == unasked("ENOMEM")
