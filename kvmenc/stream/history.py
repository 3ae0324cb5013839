"""What happened to single pages: each time that one was sent."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.errors import InputError
from kvmenc.stream.batch import KIND_NAMES, Kind
from kvmenc.stream.result import PageHistory, Sending

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.stream.batch import Batch, Block

__all__ = ["MOST_SENDINGS", "Histories", "WatchedPage"]

MOST_SENDINGS = 500
_CONTENT = {Kind.NORMAL, Kind.ZERO}


class WatchedPage(NamedTuple):
    """A page to be followed.

    Attributes:
        block: name of its RAMBlock.
        offset: of any of its bytes.
    """

    block: str
    offset: int

    @classmethod
    def parse(cls, text: str) -> WatchedPage:
        """Read ``pc.ram:0x1234``: a RAMBlock, and an offset in bytes.

        Raises:
            InputError: it is not of this form.
        """
        block, _, offset = text.rpartition(":")
        try:
            found = cls(block, int(offset, 0))
        except ValueError:
            found = cls("", -1)
        if not found.block or found.offset < 0:
            raise InputError(f"{text[:40]!r} is no page: write RAMBLOCK:OFFSET, pc.ram:0x1234")
        return found


class _Followed:
    """One of them, while the stream is read."""

    def __init__(self, block: Block, page: int) -> None:
        self.block, self.page = block, page
        self.sends = 0
        self.seen: list[tuple[int, int, Kind, int, bool | None]] = []
        self._content: bytes | None = None

    def add(self, batch: Batch, call: int, page_bytes: int) -> None:
        for i in np.flatnonzero(batch.ordinals == self.block.first + self.page).tolist():
            self.sends += 1
            kind = Kind(batch.kinds[i])
            content = _content(batch, i, kind, page_bytes)
            known = self.sends > 1 and content is not None and self._content is not None
            unchanged = content == self._content if known else None
            self._content = content
            if self.sends <= MOST_SENDINGS:
                at = batch.base + int(batch.starts[i])
                self.seen.append((call, at, kind, int(batch.sizes[i]), unchanged))


class Histories:
    """Follows some pages.

    Args:
        blocks: the RAMBlocks of the stream.
        wanted: which pages.
        page_bytes: bytes in a page.

    Raises:
        InputError: a page that the stream does not have.
    """

    def __init__(
        self, blocks: Sequence[Block], wanted: Sequence[WatchedPage], page_bytes: int
    ) -> None:
        by_name = {it.name: it for it in blocks}
        self._page_bytes = page_bytes
        self._followed = [_Followed(*_place(by_name, it, page_bytes)) for it in wanted]

    def add(self, batch: Batch, call: int) -> None:
        """Pages are sent in a call."""
        for it in self._followed:
            it.add(batch, call, self._page_bytes)

    def told(self, first_calls: Sequence[int]) -> list[PageHistory]:
        """All of them; rounds are told by the calls that they begin with."""
        return [
            PageHistory(
                it.block.name,
                it.page * self._page_bytes,
                it.sends,
                [
                    Sending(bisect_right(first_calls, call), call, at, KIND_NAMES[kind], size, same)
                    for call, at, kind, size, same in it.seen
                ],
            )
            for it in self._followed
        ]


def _place(by_name: dict[str, Block], wanted: WatchedPage, page_bytes: int) -> tuple[Block, int]:
    block = by_name.get(wanted.block)
    if block is None:
        raise InputError(f"RAMBlock {wanted.block!r} is not one of {', '.join(by_name)}")
    if wanted.offset >= block.npages * page_bytes:
        text = f"offset {wanted.offset:#x} is beyond {block.name}'s {block.npages * page_bytes:#x}"
        raise InputError(f"{text} bytes")
    return block, wanted.offset // page_bytes


def _content(batch: Batch, i: int, kind: Kind, page_bytes: int) -> bytes | None:
    """A digest of the page, where the record holds all of it in the clear."""
    if kind not in _CONTENT:
        return None
    zero = np.zeros(page_bytes, np.uint8)
    page = zero if kind == Kind.ZERO else batch.tails(np.array([i]), page_bytes)[0]
    return hashlib.blake2b(page.data, digest_size=16).digest()
