"""Writes a migration stream in the dialect ``v3``: QEMU's own format, and encrypted pages in it.

That is codomania/qemu branch sev-migration-v3 (qemu-devel, 2019-08-06, "Add SEV guest live
migration support"): migration/ram.c, ``ram_save_encrypted_page`` and ``ram_save_encrypted_bitmap``;
target/i386/sev.c, ``sev_send_start``, ``sev_send_update_data`` and ``sev_save_outgoing_bitmap``.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.errors import InputError
from kvmenc.memory.words import words_for
from kvmenc.stream.wire import (
    FILE_MAGIC,
    FILE_VERSION,
    RAM_SECTION,
    RAM_VERSION,
    BitmapStatus,
    Encrypted,
    Ram,
    Section,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import BinaryIO

    from numpy.typing import NDArray

    from kvmenc.memory.words import Pages
    from kvmenc.stream.privatestate import PrivateRange

__all__ = ["PAGE_BYTES", "SessionData", "StreamBlock", "StreamWriter"]

PAGE_BYTES = 4096

#: As 0x200 is called in sev-migration-v3: RAM_SAVE_FLAG_ENCRYPTED_DATA.
_ENCRYPTED_DATA = 0x200
_SECTION_ID = 2


class StreamBlock(NamedTuple):
    """A RAMBlock as a stream names it.

    Attributes:
        name: 1 to 255 bytes.
        npages: pages of 4 KiB.
    """

    name: str
    npages: int


class SessionData(NamedTuple):
    """What the receiving firmware needs before the first page.

    Attributes:
        policy: the guest's.
        pdh: certificate of the sending platform's Diffie-Hellman key.
        session: SEND_START's session data.
    """

    policy: int
    pdh: bytes
    session: bytes


class StreamWriter:
    """Writes a stream, from its first byte to its last. Not for two threads at once.

    The order of calls: rounds one after the other, each begun by :meth:`begin_round`, with pages in
    it; in the last one, the stopped one, :meth:`private_map`; then :meth:`end`. In each call pages
    are of one RAMBlock and one road, in the order in which they are to be sent.

    Args:
        file: a binary file that takes writes; it is neither flushed nor closed.
        blocks: the guest's RAMBlocks, in the order of migration.
        session: of the firmware; None: no page will be encrypted.
        machine: QEMU's machine type, as the stream's configuration names it.

    Attributes:
        written_bytes: so far.

    Raises:
        InputError: from the constructor: a block without pages, two of a name, a name that is
            empty or longer than 255 bytes. From the methods: pages outside their block, arrays that
            do not fit each other, an encrypted page without a session, calls out of order.
    """

    def __init__(
        self,
        file: BinaryIO,
        blocks: Sequence[StreamBlock | tuple[str, int]],
        session: SessionData | None = None,
        machine: str = "pc",
    ) -> None:
        self.written_bytes = 0
        self._file = file
        self._blocks = dict(blocks)
        self._session = _encoded(session) if session else None
        self._last_block: str | None = None
        self._in_round = self._stopped = False
        _check_blocks(blocks, self._blocks)
        self._put(struct.pack(">II", FILE_MAGIC, FILE_VERSION))
        self._put(struct.pack(">BI", Section.CONFIGURATION, len(machine.encode())))
        self._put(machine.encode())
        self._put(struct.pack(">BI", Section.START, _SECTION_ID) + _counted(RAM_SECTION))
        self._put(struct.pack(">II", 0, RAM_VERSION) + _block_table(self._blocks))
        self._end_section()

    def begin_round(self, *, stopped: bool = False) -> None:
        """What follows is sent after another sync; ``stopped``: with the guest stopped."""
        if self._stopped:
            raise InputError("a stream has no round after the one of the stopped guest")
        if self._in_round:
            self._end_section()
        self._in_round, self._stopped = True, stopped
        self._put(struct.pack(">BI", Section.END if stopped else Section.PART, _SECTION_ID))

    def zero_pages(self, block: str, pages: Pages) -> int:
        """Pages that hold only zeros; returns bytes written."""
        records = np.zeros(pages.size, [("header", ">u8"), ("value", "u1")])
        return self._pages(block, pages, Ram.ZERO, records)

    def normal_pages(self, block: str, pages: Pages, contents: NDArray[np.uint8]) -> int:
        """Pages as they are: ``contents`` of shape (pages, 4096); returns bytes written."""
        _check_shape("contents", contents, (pages.size, PAGE_BYTES))
        records = np.empty(pages.size, [("header", ">u8"), ("page", "u1", PAGE_BYTES)])
        records["page"] = contents
        return self._pages(block, pages, Ram.PAGE, records)

    def encrypted_pages(
        self,
        block: str,
        pages: Pages,
        headers: NDArray[np.uint8],
        transports: NDArray[np.uint8],
    ) -> int:
        """Pages as SEND_UPDATE_DATA gave them; returns bytes written.

        Args:
            block: name of their RAMBlock.
            pages: which.
            headers: packet headers, of shape (pages, bytes of one).
            transports: encrypted contents, of shape (pages, 4096).
        """
        hdr_len = headers.shape[-1]
        _check_shape("headers", headers, (pages.size, hdr_len))
        _check_shape("transports", transports, (pages.size, PAGE_BYTES))
        if not pages.size:
            return 0
        records = np.empty(pages.size, _encrypted_record(hdr_len))
        records["kind"], records["hdr_len"] = Encrypted.PAGE, hdr_len
        records["trans_len"] = PAGE_BYTES
        records["hdr"], records["trans"] = headers, transports
        return self._pages(block, pages, _ENCRYPTED_DATA, records, self._take_session())

    def private_map(self, ranges: Iterable[PrivateRange]) -> int:
        """Private/shared as it was at the stop; returns bytes written."""
        if not self._stopped:
            raise InputError("the private map is sent with the guest stopped")
        start, name = self.written_bytes, self._last_block or next(iter(self._blocks))
        self._put(self._header(name, _ENCRYPTED_DATA) + struct.pack(">I", Encrypted.PRIVATE_STATE))
        for base_gfn, npages, words in ranges:
            _check_shape("words", words, (words_for(npages),))
            head = (BitmapStatus.CONTINUE, base_gfn * PAGE_BYTES, npages, words.size * 8)
            self._put(struct.pack(">IQQQ", *head) + words.astype("<u8").tobytes())
        self._put(struct.pack(">I", BitmapStatus.END))
        return self.written_bytes - start

    def end(self) -> None:
        """The end of RAM and of the stream: there are no devices."""
        if not self._stopped:
            raise InputError("a stream ends with the round of the stopped guest")
        self._end_section()
        description = b'{"page_size": 4096, "devices": []}'
        self._put(struct.pack(">BBI", Section.EOF, Section.VMDESCRIPTION, len(description)))
        self._put(description)

    def _take_session(self) -> bytes:
        """The session in front of the first encrypted page; nothing after that."""
        if self._session is None:
            raise InputError("an encrypted page needs the session that it was sent in")
        session, self._session = self._session, b""
        return session

    def _pages(
        self,
        block: str,
        pages: Pages,
        flags: int,
        records: NDArray[np.void],
        session: bytes = b"",
    ) -> int:
        """Records of one kind; the first one may have to name the block, or to hold the session."""
        start = self.written_bytes
        self._check_pages(block, pages)
        records["header"] = pages.astype(np.uint64) * PAGE_BYTES | int(flags | Ram.CONTINUE)
        if pages.size and (session or block != self._last_block):
            header = self._header(block, int(pages[0]) * PAGE_BYTES | flags)
            rest = records[0].tobytes()[8:]
            self._put(header + rest[:4] + session + rest[4:])
            records = records[1:]
        self._put(records.view(np.uint8).data)
        return self.written_bytes - start

    def _header(self, block: str, offset_and_flags: int) -> bytes:
        if block == self._last_block:
            return struct.pack(">Q", offset_and_flags | Ram.CONTINUE)
        self._last_block = block
        return struct.pack(">Q", offset_and_flags) + _counted(block)

    def _check_pages(self, block: str, pages: Pages) -> None:
        if not self._in_round:
            raise InputError("pages are sent in a round: begin one first")
        npages = self._blocks.get(block)
        if npages is None:
            raise InputError(f"RAMBlock {block!r} is not one of {', '.join(self._blocks)}")
        if pages.size and not 0 <= pages.min() <= pages.max() < npages:
            raise InputError(f"{block}: pages {pages.min()} to {pages.max()} of {npages}")

    def _end_section(self) -> None:
        self._put(struct.pack(">QBI", Ram.EOS, Section.FOOTER, _SECTION_ID))

    def _put(self, data: bytes | memoryview) -> None:
        self._file.write(data)
        self.written_bytes += len(data)


def _encoded(session: SessionData) -> bytes:
    return b"".join(
        (
            struct.pack(">II", session.policy, len(session.pdh)),
            session.pdh,
            struct.pack(">I", len(session.session)),
            session.session,
        )
    )


def _encrypted_record(hdr_len: int) -> np.dtype[np.void]:
    return np.dtype(
        [
            ("header", ">u8"),
            ("kind", ">u4"),
            ("hdr_len", ">u4"),
            ("hdr", "u1", hdr_len),
            ("trans_len", ">u4"),
            ("trans", "u1", PAGE_BYTES),
        ]
    )


def _counted(name: str) -> bytes:
    encoded = name.encode()
    return bytes([len(encoded)]) + encoded


def _block_table(blocks: dict[str, int]) -> bytes:
    """How large all RAM is, then each block's name and size."""
    rows = [
        _counted(name) + struct.pack(">Q", npages * PAGE_BYTES) for name, npages in blocks.items()
    ]
    total = sum(blocks.values()) * PAGE_BYTES
    return struct.pack(">Q", total | Ram.MEM_SIZE) + b"".join(rows)


def _check_blocks(blocks: Sequence[tuple[str, int]], by_name: dict[str, int]) -> None:
    if not blocks or len(by_name) < len(blocks):
        raise InputError("a stream needs RAMBlocks, each of a name of its own")
    for name, npages in by_name.items():
        if not 0 < len(name.encode()) < 256 or npages < 1:
            raise InputError(f"RAMBlock {name[:40]!r} of {npages} pages cannot be sent")


def _check_shape(what: str, array: NDArray[np.generic], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise InputError(f"{what}: expected the shape {shape}, got {array.shape}")
