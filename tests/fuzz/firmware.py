"""What the kernel and the firmware have to answer to a packet, written down here once more."""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tests.fakekvm import sevraw
from tests.fakekvm.raw import MEMORY_ENCRYPT_OP, PAGE
from tests.fakekvm.sevraw import (
    BAD_MEASUREMENT,
    HDR,
    INVALID_ADDRESS,
    INVALID_LEN,
    OK,
    UNASKED,
    Machine,
    SevGuest,
    Wire,
)
from tests.fuzz.arena import NPAGES, Arena, Part

if TYPE_CHECKING:
    import random

    from tests.fakekvm.sevraw import Answer

__all__ = ["GUEST", "ROOMS", "Blobs", "Fields", "Session", "named", "refusal", "unasked"]

#: Pages of the arena: commands and their structs; headers and contents; guests' memory.
COMMANDS, ROOMS, GUEST = 0, 2, 16
_ROOMS, _GUEST_PAGES = 7, 4
_BLOB, _KMALLOC = 0x4000, 1 << 22
_LENGTHS = (0, 1, 15, 16, 51, 52, 53, 128, 4080, 4095, 4096, 4097, 8192, 0x4000, 0x4001, 1 << 22)
_HUGE = ((1 << 22) + 1, 1 << 31, (1 << 32) - 1)


class Fields(NamedTuple):
    """Struct kvm_sev_send_update_data, and what it is called where it is received."""

    hdr_uaddr: int
    hdr_len: int
    guest_uaddr: int
    guest_len: int
    trans_uaddr: int
    trans_len: int

    def packed(self) -> bytes:
        return sevraw.PACKET.pack(*self)

    def spoilt(self, rng: random.Random, arena: Arena) -> Fields:
        """Some of the fields are others."""
        it = self
        for name in rng.sample(Fields._fields, rng.choice((0, 1, 1, 2, 6))):
            # Commands and their structs are left out: what is written there is seen otherwise.
            value = arena.somewhere(rng, ROOMS)
            if name.endswith("_len"):
                value = rng.choice((*_LENGTHS, rng.randrange(5000), rng.choice(_HUGE)))
            it = it._replace(**{name: value})
        return it


def named(answer: Answer) -> str:
    """In a word."""
    name, code = answer
    return _CODES[code] if name == "EIO" else str(name or "done")


_CODES = {
    4: "INVALID_LEN",
    6: "INVALID_CERTIFICATE",
    9: "INVALID_ADDRESS",
    11: "BAD_MEASUREMENT",
    16: "INVALID_GUEST",
}


def unasked(name: str) -> Answer:
    """The kernel's own errno: the firmware was not asked."""
    return name, UNASKED


def refusal(it: Fields, arena: Arena, *, sending: bool) -> Answer | None:
    """Why a packet cannot be one, whatever is in it; None: it can."""
    if 0 in it:
        return unasked("EINVAL")
    if it.guest_len > PAGE or it.guest_uaddr % PAGE + it.guest_len > PAGE:
        return unasked("EINVAL")
    if sending:
        if not arena.holds(it.guest_uaddr, it.guest_len):
            return unasked("ENOMEM")
        if max(it.hdr_len, it.trans_len) > _KMALLOC:
            return unasked("ENOMEM")
    elif (blob := _blob_refusal(it, arena)) is not None:
        return blob
    return firmware_refusal(it)


def firmware_refusal(it: Fields) -> Answer | None:
    """Why the firmware takes none of such lengths and address."""
    if it.hdr_len < HDR or it.trans_len < it.guest_len:
        return INVALID_LEN
    if it.guest_uaddr % 16:
        return INVALID_ADDRESS
    return INVALID_LEN if it.guest_len % 16 else None


def _blob_refusal(it: Fields, arena: Arena) -> Answer | None:
    """A header first, then contents; then the page that they are for."""
    for address, size in ((it.hdr_uaddr, it.hdr_len), (it.trans_uaddr, it.trans_len)):
        if size > _BLOB:
            return unasked("EINVAL")
        if not arena.holds(address, size):
            return unasked("EFAULT")
    return None if arena.holds(it.guest_uaddr, 1) else unasked("ENOMEM")


@dataclass
class Session:
    """A guest that is being sent and one that receives, both in the arena.

    Attributes:
        machine: whose they are.
        arena: their memory, and all that commands point at.
        source: sends.
        target: receives.
        sealed: what the source's firmware made: plain contents, by all that a MAC is over.
    """

    machine: Machine
    arena: Arena
    source: SevGuest
    target: SevGuest
    sealed: dict[tuple[bytes, bytes, int], bytes] = field(default_factory=dict)

    @classmethod
    def begin(cls, machine: Machine, arena: Arena) -> Session:
        """The source's pages hold what tells each from any other."""
        guests = [_guest(machine, arena, GUEST + n * _GUEST_PAGES) for n in range(2)]
        for page, content in enumerate(sevraw.pages(_GUEST_PAGES)):
            guests[0].write(page, content)
        self = cls(machine, arena, guests[0].launch(), guests[1].init())
        answer, blob = self.source.send_start()
        assert (answer, self.target.receive_start(blob)) == (OK, OK)
        for number, (size, room) in enumerate(((PAGE, PAGE), (16, 16), (64, PAGE), (PAGE, 8192))):
            wire = self._sent(number % _GUEST_PAGES, size, room)
            arena.put((ROOMS + 3 * number) * PAGE, wire.hdr)
            arena.put((ROOMS + 3 * number + 1) * PAGE, wire.trans)
        arena.keep()
        return self

    def _sent(self, page: int, size: int, room: int) -> Wire:
        wire = self.source.send(page, trans=room, guest_len=size)
        assert isinstance(wire, Wire)
        self.sealed[wire.hdr, wire.trans, size] = self.source.view(page)[:size]
        return wire

    def packet(self, rng: random.Random, guest: SevGuest) -> Fields:
        """A sound one, for some page; which of those sealed it would be by its lengths."""
        number = rng.randrange(4)
        size, room = ((PAGE, PAGE), (16, 16), (64, PAGE), (PAGE, 8192))[number]
        hdr = self.arena.page(ROOMS + 3 * number)
        page = guest.address(rng.randrange(_GUEST_PAGES))
        return Fields(hdr, HDR, page, size, hdr + PAGE, room)

    def issue(self, guest: SevGuest, number: int, data: bytes) -> Answer:
        """A command whose struct is in the arena."""
        self.arena.put(512, data)
        command = struct.pack("<IIQII", number, 0, self.arena.address + 512, UNASKED, guest.sev_fd)
        self.arena.put(0, command)
        result = self.machine.ioctl(guest.vm, MEMORY_ENCRYPT_OP, self.arena.address)
        return result, struct.unpack_from("<I", self.arena.map, 16)[0]

    def receives(self, it: Fields) -> tuple[Answer, bytes]:
        """What the target has to answer, and what it then reads there."""
        odd = refusal(it, self.arena, sending=False)
        if odd:
            return odd, b""
        plain = self.plain(it)
        return (BAD_MEASUREMENT, b"") if plain is None else (OK, plain)

    def plain(self, it: Fields) -> bytes | None:
        """What was sealed as this packet, to the last bit; None: nothing was."""
        hdr, trans = self.arena.at(it.hdr_uaddr, HDR), self.arena.at(it.trans_uaddr, it.trans_len)
        return self.sealed.get((hdr or b"", trans or b"", it.guest_len))


def _guest(machine: Machine, arena: Arena, page: int) -> SevGuest:
    guest = SevGuest(machine, _GUEST_PAGES)
    guest.area = Part(arena.page(page), _GUEST_PAGES)  # type: ignore[assignment]  # as good as one
    return guest


#: Where each of the blobs of a session lies, beyond the guests.
_BLOB_PAGES = range(GUEST + 2 * _GUEST_PAGES, NPAGES, 4)


class Blobs:
    """Certificates and a session, at pages of their own, perhaps with some bytes changed.

    Args:
        arena: that they are put into.
        contents: each.
    """

    def __init__(self, arena: Arena, *contents: bytes) -> None:
        self._arena, self._contents = arena, contents
        self.places = [(arena.page(page), len(it)) for page, it in self._placed()]

    def _placed(self) -> list[tuple[int, bytes]]:
        return list(zip(_BLOB_PAGES, self._contents, strict=False))

    def spoil(self, rng: random.Random) -> None:
        """Put them there, and change a bit of one, or where one is said to be, or how long."""
        for page, content in self._placed():
            self._arena.put(page * PAGE, content)
        which, how = rng.randrange(len(self._contents)), rng.randrange(4)
        address, size = self.places[which]
        if how == 1:
            at = address - self._arena.address + rng.randrange(size)
            self._arena.put(at, bytes([self._arena.map[at] ^ 1 << rng.randrange(8)]))
        elif how == 2:
            self.places[which] = self._arena.somewhere(rng, GUEST), size
        elif how == 3:
            odd = rng.choice((0, 1, size - 1, size + 1, _BLOB, _BLOB + 1, (1 << 32) - 1))
            self.places[which] = address, odd

    def refusal(self) -> Answer | None:
        """The kernel's, before the firmware is asked: of the first that it cannot copy."""
        for address, size in self.places:
            if not address or not 0 < size <= _BLOB:
                return unasked("EINVAL")
            if not self._arena.holds(address, size):
                return unasked("EFAULT")
        return None

    @property
    def are_sound(self) -> bool:
        """All bytes are those that there were, and no more."""
        there = [self._arena.at(*place) for place in self.places]
        return there == list(self._contents)
