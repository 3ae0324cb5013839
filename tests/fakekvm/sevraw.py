"""SEV commands by bytes, on the fake: as ``raw``, a third opinion on the layouts."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple, Self

from fakekvm import Host, host_named
from fakekvm.sevcerts import Chip
from tests.fakekvm import raw
from tests.fakekvm.raw import PAGE, Area, Buffer, FakeMachine, Result

if TYPE_CHECKING:
    from collections.abc import Iterator

REG, UNREG = 0x8010AEBB, 0x8010AEBC
SEV_ISSUE_CMD = 0xC0105300

INIT, ES_INIT, LAUNCH_START, LAUNCH_UPDATE, LAUNCH_UPDATE_VMSA = 0, 1, 2, 3, 4
LAUNCH_MEASURE, LAUNCH_FINISH, SEND_START, SEND_UPDATE, SEND_UPDATE_VMSA = 6, 7, 8, 9, 10
SEND_FINISH, RECEIVE_START, RECEIVE_UPDATE, RECEIVE_UPDATE_VMSA = 11, 12, 13, 14
RECEIVE_FINISH, STATUS, DBG_DECRYPT, SEND_CANCEL, INIT2, BATCH = 15, 16, 17, 21, 22, 24

#: struct kvm_sev_send_update_data: header, guest memory, contents; of each address and length.
PACKET = struct.Struct("<QI4xQI4xQI4x")
HDR, SESSION = 52, 128
UNINIT, LAUNCHING, SECRET, RUNNING, SENDING, RECEIVING, SENT = range(7)

Answer = tuple[Result, int]  # what the ioctl returned, and the firmware's error
OK: Answer = (0, 0)
UNASKED = 0xDEAD  # what was in the error field before

INVALID_STATE: Answer = ("EIO", 2)
INVALID_LEN: Answer = ("EIO", 4)
INVALID_CERTIFICATE: Answer = ("EIO", 6)
POLICY_FAILURE: Answer = ("EIO", 7)
INVALID_ADDRESS: Answer = ("EIO", 9)
BAD_MEASUREMENT: Answer = ("EIO", 11)


class Machine(FakeMachine):
    """A fake with a /dev/sev that is open."""

    def __init__(self, host: Host | None = None) -> None:
        super().__init__(host or host_named("sev"))
        self.sev = self.kernel.open("/dev/sev", os.O_RDONLY)


class Wire(NamedTuple):
    """A page on its way."""

    hdr: bytes
    trans: bytes

    def flipped(self, bit: int) -> Wire:
        """With one bit of all changed."""
        both = bytearray(self.hdr + self.trans)
        both[bit // 8] ^= 1 << bit % 8
        return Wire(bytes(both[: len(self.hdr)]), bytes(both[len(self.hdr) :]))


class SevGuest:
    """A VM on the fake, with some memory; commands answer with errno and firmware's error."""

    def __init__(self, machine: Machine, npages: int = 4, vm_type: int = 2) -> None:
        self.machine = machine
        self.area = Area(npages)
        self.npages = npages
        self.vm = raw.new_vm(machine, vm_type)
        self.sev_fd = machine.sev

    def issue(self, number: int, data: Buffer | int = 0) -> Answer:
        address = data if isinstance(data, int) else data.address
        command = Buffer(struct.pack("<IIQII", number, 0, address, UNASKED, self.sev_fd))
        result = self.machine.ioctl(self.vm, raw.MEMORY_ENCRYPT_OP, command)
        return result, struct.unpack_from("<I", command.bytes, 16)[0]

    def init(self) -> Self:
        assert self.issue(INIT2, Buffer(bytes(48)))[0] == 0
        return self

    def address(self, page: int = 0) -> int:
        return self.area.address + page * PAGE

    def launch_start(self, policy: int = 0) -> Answer:
        return self.issue(LAUNCH_START, Buffer(struct.pack("<IIQIIQII", 0, policy, *[0] * 6)))

    def launch_update(self, page: int = 0, npages: int | None = None) -> Answer:
        size = (self.npages if npages is None else npages) * PAGE
        return self.issue(LAUNCH_UPDATE, Buffer(struct.pack("<QII", self.address(page), size, 0)))

    def measure(self, room: int = 48) -> Answer:
        blob = Buffer(bytes(max(room, 1)))
        return self.issue(LAUNCH_MEASURE, Buffer(struct.pack("<QII", blob.address, room, 0)))

    def launch(self, policy: int = 0) -> Self:
        self.init()
        answers = [self.launch_start(policy), self.launch_update(), self.measure()]
        assert [*answers, self.issue(LAUNCH_FINISH)] == [OK] * 4
        return self

    def state(self) -> int | Answer:
        status = Buffer(bytes(12))
        answer = self.issue(STATUS, status)
        return struct.unpack("<III", status.bytes)[2] if answer == OK else answer

    def send_start(
        self, chip: str = "chip 0", room: int = SESSION, blobs: tuple[bytes, ...] | None = None
    ) -> tuple[Answer, bytes]:
        """The answer, and the session."""
        certificates = [Buffer(it) for it in blobs or Chip(chip).certificates()]
        session = Buffer(bytes(room))
        pairs = [(it.address, it.size, 0) for it in (*certificates, session)]
        data = Buffer(struct.pack("<II" + "QII" * 4, 0, 0, *sum(pairs, ())))
        answer = self.issue(SEND_START, data)
        return answer, session.bytes

    def send(self, page: int = 0, hdr: int = HDR, trans: int = PAGE, **odd: int) -> Answer | Wire:
        """A page on its way, or why not. ``odd``: fields that are not as they should be."""
        room = Buffer(bytes(hdr)), Buffer(bytes(trans))
        data = packet(self.address(page), room, **odd)
        answer = self.issue(SEND_UPDATE, data)
        return Wire(room[0].bytes, room[1].bytes) if answer == OK else answer

    def sent(self, page: int = 0) -> Wire:
        wire = self.send(page)
        assert isinstance(wire, Wire), wire
        return wire

    def receive_start(self, session: bytes, policy: int = 0, chip: str = "chip 0") -> Answer:
        pdh, blob = Buffer(Chip(chip).certificates().pdh), Buffer(session)
        fields = (0, policy, pdh.address, pdh.size, 0, blob.address, blob.size, 0)
        return self.issue(RECEIVE_START, Buffer(struct.pack("<IIQIIQII", *fields)))

    def receive(self, wire: Wire, page: int = 0, **odd: int) -> Answer:
        room = Buffer(wire.hdr), Buffer(wire.trans)
        return self.issue(RECEIVE_UPDATE, packet(self.address(page), room, **odd))

    def view(self, page: int = 0) -> bytes:
        """A page as the guest reads it."""
        return self.machine.kernel.guest_view(self.vm, self.address(page), PAGE)

    def bytes_at(self, page: int = 0) -> bytes:
        """A page as the host reads it."""
        return bytes(self.area.map[page * PAGE : (page + 1) * PAGE])

    def write(self, page: int, content: bytes) -> None:
        self.area.map[page * PAGE : page * PAGE + len(content)] = content


def packet(address: int, room: tuple[Buffer, Buffer], **odd: int) -> Buffer:
    """Struct kvm_sev_send_update_data, with fields that are not as they should be."""
    hdr, trans = room
    fields = {
        "hdr_uaddr": hdr.address,
        "hdr_len": hdr.size,
        "guest_uaddr": address,
        "guest_len": PAGE,
        "trans_uaddr": trans.address,
        "trans_len": trans.size,
    } | odd
    return Buffer(PACKET.pack(*fields.values()))


def pages(npages: int, seed: int = 1) -> Iterator[bytes]:
    """Contents that tell each page from any other."""
    for page in range(npages):
        yield bytes((seed * 31 + page * 7 + number // 16) % 251 for number in range(PAGE))


def filled(machine: Machine, npages: int = 4, policy: int = 0, seed: int = 1) -> SevGuest:
    """A launched guest, with contents of its own."""
    guest = SevGuest(machine, npages)
    for page, content in enumerate(pages(npages, seed)):
        guest.write(page, content)
    return guest.launch(policy)


def session(machine: Machine, policy: int = 0) -> tuple[SevGuest, SevGuest]:
    """A guest that is being sent, and the one that it arrives in."""
    source, target = filled(machine, policy=policy), SevGuest(machine).init()
    answer, blob = source.send_start()
    assert (answer, target.receive_start(blob, policy)) == (OK, OK)
    return source, target


def guest_count(machine: Machine) -> int:
    """SEV_PLATFORM_STATUS."""
    status = Buffer(bytes(12))
    command = Buffer(struct.pack("<IQI", 1, status.address, 0))
    assert machine.ioctl(machine.sev, SEV_ISSUE_CMD, command) == 0
    return int(struct.unpack("<BBBIBI", status.bytes)[5])
