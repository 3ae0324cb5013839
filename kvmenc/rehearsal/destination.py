"""The receiving end: a VM of the same slots on another host, filled by what comes over the line."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kvmenc import uapi
from kvmenc.errors import CheckFailed, KvmencError
from kvmenc.firmware import Certificates, GuestState, PacketRows, ReceiveSession
from kvmenc.guest.scratch import PAGE
from kvmenc.memory.words import copy_bits, ones
from kvmenc.rehearsal.records import Opener, PagesRecord
from kvmenc.rehearsal.side import revision_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from kvmenc.memory.maps import PrivateMap
    from kvmenc.memory.words import Pages, Words
    from kvmenc.rehearsal.side import Flags, Rows, Side

__all__ = ["NearTarget", "Opening", "Target"]


class Opening(NamedTuple):
    """What the destination gets before the first page.

    Attributes:
        policy: the guest's.
        pdh: certificate of the source's platform.
        session: what the source's firmware made of SEND_START.
        hdr_len: bytes of a packet's header.
        key: of the line; both ends have it from elsewhere.
    """

    policy: int
    pdh: bytes
    session: bytes
    hdr_len: int
    key: bytes


class Target(Protocol):
    """A destination, wherever it is. What it refuses is raised by that method or a later one."""

    def certificates(self) -> Certificates:
        """Of its platform."""

    def begin(self, opening: Opening) -> None:
        """A guest is to arrive."""

    def take(self, sealed: bytes) -> None:
        """A record from the line."""

    def finish(self, private: Mapping[str, Words]) -> None:
        """All has come, and these pages are private: the guest may run here."""

    def runs(self) -> bool:
        """Whether its firmware says that the guest may run here."""

    def private_now(self) -> Mapping[str, PrivateMap]:
        """Each RAMBlock's private pages, asked of its KVM now."""

    def view(self, block: int, pages: slice, private: Flags) -> tuple[Pages, Rows]:
        """Pages of a RAMBlock as the guest reads them; see ``Side.view``."""

    def digest_later(self, block: int, pages: slice, private: Flags) -> Callable[[], bytes]:
        """Of such pages; see ``Side.digest``. What is returned waits for it."""


class NearTarget:
    """A destination in this process.

    Args:
        side: its VM, not launched.

    Attributes:
        ended: why no guest will run here any more; empty: one may.
    """

    def __init__(self, side: Side) -> None:
        self._side, self.ended = side, ""
        self._rows = [side.rows(block) for block in side.layout.blocks]
        self._npages = [block.npages for block in side.layout.blocks]

    def certificates(self) -> Certificates:
        """Of its platform."""
        return Certificates(*self._side.kernel.firmware.chip.certificates())

    def begin(self, opening: Opening) -> None:
        """A guest is to arrive.

        Raises:
            FirmwareRefused: BAD_MEASUREMENT: the session is for another platform.
        """
        it = opening
        self._session = ReceiveSession(self._side.sev, it.policy, it.pdh, it.session)
        self._opener, self._hdr_len = Opener(it.key), it.hdr_len

    def take(self, sealed: bytes | memoryview) -> None:
        """A record from the line.

        Raises:
            RecordRefused: it is not the next one, not as it was sent, or not of this guest's
                RAMBlocks; nothing of it was used.
            FirmwareRefused: a packet in it is not as the sender's firmware made it.
        """
        try:
            record = PagesRecord.decode(self._opener.open(sealed))
            self._fill(record.check(self._npages, self._hdr_len))
        except KvmencError as error:
            self.ended = str(error)
            raise

    def _fill(self, record: PagesRecord) -> None:
        rows, block = self._rows[record.block], self._side.layout.blocks[record.block]
        rows[record.normal] = record.contents
        # A page that was never written is zero, and is to stay untouched.
        rows[record.zero[~self._side.are_zero(block, record.zero)]] = 0
        packets = PacketRows(record.headers, record.transports)
        packets.lie_at(block.host_addr + record.encrypted * PAGE)
        self._session.receive_rows(packets)

    def finish(self, private: Mapping[str, Words]) -> None:
        """All has come, and these pages are private: the guest may run here.

        Raises:
            FirmwareRefused: RECEIVE_FINISH.
            IoctlError: the state cannot be set.
            CheckFailed: a record was refused, so that not all has come.
        """
        if self.ended:
            raise CheckFailed(self.ended)
        self._set_private(private)
        self._session.finish()

    def _set_private(self, private: Mapping[str, Words]) -> None:
        """From gfn 0 on, since kernels copy whole words from the one that holds the first gfn."""
        layout, vm = self._side.layout, self._side.vm
        ngfns = max(slot.end_gfn for slot in layout.slots)
        words = ones(ngfns)
        for slot in layout.slots:
            for piece in layout.pieces_of(slot):
                first = slot.base_gfn + piece.slot_page
                state = private[piece.block.name]
                copy_bits(words, first, state, piece.block_page, piece.npages)
        arg = uapi.kvm_page_enc_bitmap(start_gfn=0, num_pages=ngfns)
        arg.enc_bitmap = words.ctypes.data  # words: alive during the call
        setter = revision_of(self._side.kernel).set
        assert setter is not None, "the destination's host is one that has it"
        vm.ioctl(setter, arg, f"num_pages={ngfns}")

    def runs(self) -> bool:
        """Whether its firmware says that the guest may run here."""
        return self._side.sev.status().state == GuestState.RUNNING

    def private_now(self) -> Mapping[str, PrivateMap]:
        """Each RAMBlock's private pages, asked of its KVM now."""
        return self._side.private_now()

    def view(self, block: int, pages: slice, private: Flags) -> tuple[Pages, Rows]:
        """Pages of a RAMBlock as the guest reads them; see ``Side.view``."""
        return self._side.view(self._side.layout.blocks[block], pages, private)

    def digest(self, block: int, pages: slice, private: Flags) -> bytes:
        """Of such pages; see ``Side.digest``."""
        return self._side.digest(self._side.layout.blocks[block], pages, private)

    def digest_later(self, block: int, pages: slice, private: Flags) -> Callable[[], bytes]:
        """The same, when it is asked for."""
        return partial(self.digest, block, pages, private)
