"""The way between both ends: records, each sealed, with a number that none other has.

A record carries pages of one RAMBlock. It is sealed as TLS 1.3 seals its own (RFC 8446, 5.2 and
5.3): AES-128-GCM, the nonce made of the record's number, its head authenticated with it. SEV's own
packets are over no order and no page's address: whoever holds the line could put an old page in the
place of a new one, and no firmware would notice. So order, completeness and place are kept here.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from kvmenc.errors import InputError
from kvmenc.guest.scratch import PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kvmenc.memory.words import Pages

    Rows = NDArray[np.uint8]

__all__ = ["Opener", "PagesRecord", "RecordRefused", "Sealer"]

Wrong = Literal["truncated", "tampered", "replayed", "reordered", "malformed"]

_MAGIC = b"KVR1"
_HEAD = struct.Struct("<4sQI")  # magic, number, sealed bytes that follow
_PAGES = struct.Struct("<IIIII")  # block; normal, zero, encrypted pages; bytes of a packet's header
_PAGE_NUMBER = np.dtype("<u8")
_NO_PAGES: Pages = np.empty(0, np.int64)
_NO_ROWS: Rows = np.empty((0, 0), np.uint8)

_WORDS = {
    "truncated": "it ends before its end",
    "tampered": "it was changed on its way, or is under another key",
    "replayed": "it came before",
    "reordered": "records before it have not come",
    "malformed": "no sender makes such a one",
}


class RecordRefused(InputError):
    """A record that is not the next one as it was sent, or not for this guest.

    Attributes:
        why: what is wrong with it.
    """

    def __init__(self, why: Wrong, expected: int | None = None, detail: str = "") -> None:
        self.why = why
        which = "a record" if expected is None else f"record {expected}"
        super().__init__(f"{which} of the stream refused: {why}: {detail or _WORDS[why]}")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PagesRecord:
    """Pages of one RAMBlock, by road; page numbers count within it.

    Attributes:
        block: the RAMBlock's place in the layout.
        normal: shared pages.
        contents: of these, a row each.
        zero: shared pages that hold only zeros.
        encrypted: private pages.
        headers: of their packets, a row each.
        transports: what the firmware made of them, a row each.
    """

    block: int
    normal: Pages = field(default_factory=lambda: _NO_PAGES)
    contents: Rows = field(default_factory=lambda: _NO_ROWS)
    zero: Pages = field(default_factory=lambda: _NO_PAGES)
    encrypted: Pages = field(default_factory=lambda: _NO_PAGES)
    headers: Rows = field(default_factory=lambda: _NO_ROWS)
    transports: Rows = field(default_factory=lambda: _NO_ROWS)

    @property
    def pages(self) -> int:
        """How many there are, of all roads."""
        return int(self.normal.size + self.zero.size + self.encrypted.size)

    def encode(self) -> bytes:
        """Its bytes."""
        numbers = np.concatenate([self.normal, self.zero, self.encrypted]).astype(_PAGE_NUMBER)
        counts = self.normal.size, self.zero.size, self.encrypted.size
        head = _PAGES.pack(self.block, *counts, self.headers.shape[-1])
        parts = (numbers, self.contents, self.headers, self.transports)
        return b"".join([head, *(np.ascontiguousarray(it).data for it in parts)])

    @classmethod
    def decode(cls, data: bytes) -> PagesRecord:
        """What ``encode`` made, seen in place: no more memory than ``data`` is taken.

        Raises:
            RecordRefused: malformed: its counts are not those of what it holds.
        """
        if len(data) < _PAGES.size:
            raise RecordRefused("malformed", detail=f"{len(data)} bytes, fewer than a head")
        block, normal, zero, encrypted, hdr_len = _PAGES.unpack_from(data)
        count = normal + zero + encrypted
        size = _PAGES.size + count * _PAGE_NUMBER.itemsize
        size += normal * PAGE + encrypted * (hdr_len + PAGE)
        if len(data) != size:
            raise RecordRefused("malformed", detail=f"{len(data)} bytes, its head says {size}")
        numbers = np.frombuffer(data, _PAGE_NUMBER, count, _PAGES.size).astype(np.int64)
        at = _PAGES.size + numbers.nbytes
        contents, at = _rows(data, at, normal, PAGE)
        headers, at = _rows(data, at, encrypted, hdr_len)
        transports, at = _rows(data, at, encrypted, PAGE)
        return cls(
            block=block,
            normal=numbers[:normal],
            contents=contents,
            zero=numbers[normal : normal + zero],
            encrypted=numbers[normal + zero :],
            headers=headers,
            transports=transports,
        )

    def check(self, sizes: Sequence[int], hdr_len: int) -> PagesRecord:
        """See that it is of such RAMBlocks; returns it. Whoever stores it needs to look no more.

        Args:
            sizes: pages of each RAMBlock, by its place in the layout.
            hdr_len: bytes of a packet's header in this session.

        Raises:
            RecordRefused: malformed: there is no such RAMBlock or page, a road's pages do not
                ascend, a page comes by two roads, or headers are of another length.
        """
        if self.block >= len(sizes):
            raise RecordRefused("malformed", detail=f"block {self.block} of {len(sizes)}")
        npages = sizes[self.block]
        _check_pages("normal", self.normal, npages)
        _check_pages("zero", self.zero, npages)
        _check_pages("encrypted", self.encrypted, npages)
        if _come_twice(self.normal, self.zero, self.encrypted):
            raise RecordRefused("malformed", detail="a page comes by two roads")
        if self.encrypted.size and self.headers.shape[1] != hdr_len:
            detail = f"headers of {self.headers.shape[1]} bytes, this session's have {hdr_len}"
            raise RecordRefused("malformed", detail=detail)
        return self


def _check_pages(road: str, pages: Pages, npages: int) -> None:
    """Ascending, and of the block: so the first and the last tell of all."""
    if not pages.size:
        return
    if np.count_nonzero(pages[1:] <= pages[:-1]):  # quicker than any()
        raise RecordRefused("malformed", detail=f"its {road} pages do not ascend")
    first, last = int(pages[0]), int(pages[-1])
    if first < 0 or last >= npages:
        odd = last if first >= 0 else first
        raise RecordRefused("malformed", detail=f"{road} page {odd % 2**64:#x} of {npages:#x}")


def _come_twice(*roads: Pages) -> bool:
    """Whether two roads have a page in common, each ascending by itself."""
    used = [pages for pages in roads if pages.size]
    if len(used) < 2:
        return False
    pages = np.concatenate(used)
    pages.sort()
    return bool(np.count_nonzero(pages[1:] == pages[:-1]))


def _rows(data: bytes, at: int, count: int, size: int) -> tuple[Rows, int]:
    rows = np.frombuffer(data, np.uint8, count * size, at).reshape(count, size)
    return rows, at + rows.nbytes


class Sealer:
    """The sender's end.

    Args:
        key: 16 bytes that only both ends have, used for this migration alone.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._number = 0

    def seal(self, data: bytes) -> bytes:
        """The next record."""
        head = _HEAD.pack(_MAGIC, self._number, len(data) + 16)
        sealed = self._cipher.encrypt(_nonce(self._number), data, head)
        self._number += 1
        return head + sealed


class Opener:
    """The receiver's end.

    Args:
        key: as the sender's.
    """

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)
        self._next = 0

    def open(self, record: bytes | memoryview) -> bytes:
        """What is in the next record.

        Raises:
            RecordRefused: it is another one, or not as it was sent. Nothing of it was used.
        """
        if len(record) < _HEAD.size:
            raise RecordRefused("truncated", self._next)
        magic, number, size = _HEAD.unpack_from(record)
        if magic == _MAGIC and len(record) < _HEAD.size + size:
            raise RecordRefused("truncated", self._next)
        try:
            data = self._cipher.decrypt(_nonce(number), record[_HEAD.size :], record[: _HEAD.size])
        except InvalidTag as error:
            raise RecordRefused("tampered", self._next) from error
        if number != self._next:
            raise RecordRefused("replayed" if number < self._next else "reordered", self._next)
        self._next += 1
        return data


def _nonce(number: int) -> bytes:
    return number.to_bytes(12, "big")
