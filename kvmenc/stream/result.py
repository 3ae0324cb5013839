"""What is in a stream, as data: ``kvmenc stream --json``, schema ``kvmenc.stream/1``."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmenc.plan.result import Counts
from kvmenc.stream.batch import KindName

__all__ = [
    "AgainstReport",
    "BlockTotals",
    "BytesByKind",
    "DeviceTotals",
    "PageHistory",
    "PagesByKind",
    "PrivateStateReport",
    "RoundBlock",
    "Sending",
    "SendingCount",
    "SessionReport",
    "StreamReport",
    "StreamRound",
    "WrongRange",
]


class PagesByKind(Struct, frozen=True):
    """Pages sent, by how; a page sent twice counts twice.

    Attributes:
        zero: pages that hold only zeros.
        normal: pages that travel as they are.
        xbzrle: pages sent as a difference.
        compressed: pages that zlib made shorter.
        encrypted: pages that went through the firmware.
    """

    zero: int
    normal: int
    xbzrle: int
    compressed: int
    encrypted: int


class BytesByKind(Struct, frozen=True):
    """Every byte of the file.

    Attributes:
        zero: bytes of records of zero pages, headers and names included; so the others.
        normal: bytes of pages as they are.
        xbzrle: bytes of pages sent as a difference.
        compressed: bytes of pages that zlib made shorter.
        encrypted: bytes of packets, without the session.
        session: bytes of it in the first encrypted page.
        private_state: bytes of bitmaps or lists of what is private.
        cpu_states: bytes of encrypted registers.
        framing: bytes of what holds the sections and calls together, the block table, and what
            libvirt puts before a stream.
        devices: bytes of their sections.
        description: bytes of what the stream says of them at its end.
        unread: bytes behind what can be read; null: the file does not tell its size.
    """

    zero: int
    normal: int
    xbzrle: int
    compressed: int
    encrypted: int
    session: int
    private_state: int
    cpu_states: int
    framing: int
    devices: int
    description: int
    unread: int | None


class BlockTotals(Struct, frozen=True):
    """A RAMBlock.

    Attributes:
        name: as it is sent.
        npages: its size.
        sent_pages: sent at least once.
        most_sends: how often the page was sent that was sent most often; 255: that or more.
        pages: sent, by kind.
        bytes: of these on the wire, by road.
    """

    name: str
    npages: int
    sent_pages: int
    most_sends: int
    pages: PagesByKind
    bytes: Counts


class RoundBlock(Struct, frozen=True):
    """What a round sent of a RAMBlock, by road.

    Attributes:
        name: of the RAMBlock.
        pages: sent.
        bytes: of these on the wire.
    """

    name: str
    pages: Counts
    bytes: Counts


class StreamRound(Struct, frozen=True):
    """Calls between which no sync can be told.

    Attributes:
        calls: in which QEMU sent it.
        pages: sent in it, by road.
        bytes: of these on the wire.
        sent_before_pages: of these sent in an earlier round as well.
        stopped: with the guest stopped.
        blocks: the same by RAMBlock, of those that something was sent of.
    """

    calls: int
    pages: Counts
    bytes: Counts
    sent_before_pages: int
    stopped: bool
    blocks: list[RoundBlock]


class SendingCount(Struct, frozen=True):
    """So many pages were sent so many times.

    Attributes:
        times: how often; 255: that or more.
        pages: that were sent so often.
    """

    times: int
    pages: int


class SessionReport(Struct, frozen=True):
    """The firmware's session.

    Attributes:
        policy: the guest's, a number of flags (AMD, publication 55766, "Guest Policy").
        pdh_bytes: of the certificate.
        session_bytes: of the session data.
    """

    policy: int
    pdh_bytes: int
    session_bytes: int


class PrivateStateReport(Struct, frozen=True):
    """The private state that the stream carries, by gfn.

    Attributes:
        form: a bitmap of private gfns, or a list of shared ones.
        ranges: how many bitmaps, or ranges of the list.
        pages: gfns that the bitmaps tell of; null: a list has no end.
        private_pages: of these private; null likewise.
        shared_pages: of these shared.
    """

    form: Literal["bitmaps", "list"]
    ranges: int
    pages: int | None
    private_pages: int | None
    shared_pages: int


class DeviceTotals(Struct, frozen=True):
    """A device's section.

    Attributes:
        name: as QEMU calls it.
        instance_id: the number that tells it from others of its name.
        bytes: of the section.
    """

    name: str
    instance_id: int
    bytes: int


class Sending(Struct, frozen=True):
    """Once that a page was sent: so it was dirty at the sync before.

    Attributes:
        round: number of the round, from 1.
        call: number of the call of QEMU's, from 1.
        offset: bytes before the record in the file.
        kind: how.
        bytes: on the wire.
        unchanged: it holds what was sent the time before; null: that is not known, or there is no
            time before.
    """

    round: int
    call: int
    offset: int
    kind: KindName
    bytes: int
    unchanged: bool | None


class PageHistory(Struct, frozen=True):
    """A page that was asked for.

    Attributes:
        block: its RAMBlock.
        offset: in bytes, of its first one.
        sends: how often it was sent.
        sendings: each time, up to some hundred.
    """

    block: str
    offset: int
    sends: int
    sendings: list[Sending]


class WrongRange(Struct, frozen=True):
    """Pages side by side that took the wrong road.

    Attributes:
        block: their RAMBlock.
        page: the number of the first one, from 0.
        npages: how many.
        was: what the capture says that they are.
        at_last: whether the last time that they were sent was wrong, too.
    """

    block: str
    page: int
    npages: int
    was: Literal["private", "shared"]
    at_last: bool


class AgainstReport(Struct, frozen=True):
    """Roads compared with a capture's private map.

    Attributes:
        capture: the file.
        source: what was captured.
        compared_pages: sent, of RAMBlocks that the capture knows.
        private_in_clear_pages: private ones that were sent normal or zero.
        shared_encrypted_pages: shared ones that were sent encrypted.
        at_last_pages: of both, those whose last sending was wrong.
        ranges: where these are, up to some thousand ranges.
        ranges_left_out: how many more there are.
        unknown_blocks: RAMBlocks that the capture does not have.
    """

    capture: str
    source: str
    compared_pages: int
    private_in_clear_pages: int
    shared_encrypted_pages: int
    at_last_pages: int
    ranges: list[WrongRange]
    ranges_left_out: int
    unknown_blocks: list[str]

    @property
    def wrong_pages(self) -> int:
        """Pages that took the wrong road at least once."""
        return self.private_in_clear_pages + self.shared_encrypted_pages


class StreamReport(Struct, frozen=True, kw_only=True):
    """A stream.

    Attributes:
        schema: ``kvmenc.stream/1``.
        source: the file.
        machine: QEMU's machine type; empty where the stream does not name it.
        page_size: in bytes.
        dialects: those that explain the encrypted records; all of them where there is none.
        bytes_total: bytes of the file, as far as it was read.
        why_unread: what stands in the way of reading to the end; empty: it was read.
        ram_bytes: of RAM in the block table.
        blocks: in the order of the table.
        pages: sent, by kind.
        bytes: of the file, by kind.
        passes: how often the cursor went over RAM, at least.
        rounds: oldest first, up to some thousand; what follows is in the totals only.
        rounds_total: how many there are: QEMU made at least as many syncs.
        calls: of QEMU to send pages.
        sendings: how many pages were sent how often.
        twice_in_a_call_pages: sent again with no sync in between.
        flushes: how many of multifd; then pages went over connections of their own.
        session: null where nothing is encrypted.
        private_state: null where there is none.
        encrypted_vcpus: how many have encrypted registers.
        devices: in the order of the stream.
        history: of pages that were asked for.
        against: null where no capture was given.
    """

    schema: Literal["kvmenc.stream/1"] = "kvmenc.stream/1"
    source: str
    machine: str
    page_size: int
    dialects: list[str]
    bytes_total: int
    why_unread: str
    ram_bytes: int
    blocks: list[BlockTotals]
    pages: PagesByKind
    bytes: BytesByKind
    passes: int
    rounds: list[StreamRound]
    rounds_total: int
    calls: int
    sendings: list[SendingCount]
    twice_in_a_call_pages: int
    flushes: int
    session: SessionReport | None
    private_state: PrivateStateReport | None
    encrypted_vcpus: int
    devices: list[DeviceTotals]
    history: list[PageHistory]
    against: AgainstReport | None = None
