"""Roads that pages took, against a capture that knows which of them are private."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from kvmenc.errors import InputError
from kvmenc.memory.words import bits_at, ones, ranges, zeros
from kvmenc.stream.batch import Kind
from kvmenc.stream.result import AgainstReport, WrongRange

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kvmenc.capture import BlockFacts, CaptureFile
    from kvmenc.memory.words import Words
    from kvmenc.stream.batch import Batch, Block

__all__ = ["MOST_RANGES", "Against"]

MOST_RANGES = 1000
#: Of a page: it was sent; private in the clear; shared encrypted; the last sending was wrong.
_SENT, _IN_CLEAR, _ENCRYPTED, _AT_LAST = 1, 2, 4, 8


class Against:
    """Compares each page that is sent.

    Args:
        capture: with private maps of the RAMBlocks.
        name: of its file.
        blocks: the RAMBlocks of the stream.

    Raises:
        InputError: the capture has no RAMBlock of the stream, one of another size, or does not tell
            which of its pages are private.
        CaptureError: a bitmap is damaged.
    """

    def __init__(self, capture: CaptureFile, name: str, blocks: Sequence[Block]) -> None:
        self._name, self._source = name, capture.capture.source
        self._blocks = blocks
        facts = {it.name: it for it in capture.capture.blocks}
        if not facts.keys() & {it.name for it in blocks}:
            raise InputError(
                f"{name}: the capture has none of {', '.join(it.name for it in blocks)}"
            )
        self._private = [
            _private(capture, name, facts[it.name], it) if it.name in facts else None
            for it in blocks
        ]
        self._seen = [np.zeros(it.npages, np.uint8) if it.name in facts else None for it in blocks]

    def add(self, batch: Batch) -> None:
        """Pages are sent."""
        encrypted = batch.kinds == Kind.ENCRYPTED
        for i in np.unique(batch.blocks).tolist():
            private, seen = self._private[i], self._seen[i]
            if private is not None and seen is not None:
                of_block = batch.blocks == i
                _note(seen, private, batch.pages[of_block], encrypted[of_block])

    def told(self) -> AgainstReport:
        """What was found."""
        known = [it for it in self._seen if it is not None]
        found = [
            it
            for block, seen in zip(self._blocks, self._seen, strict=True)
            if seen is not None
            for it in _ranges(block.name, seen)
        ]
        return AgainstReport(
            self._name,
            self._source,
            _pages(known, _SENT),
            _pages(known, _IN_CLEAR),
            _pages(known, _ENCRYPTED),
            _pages(known, _AT_LAST),
            found[:MOST_RANGES],
            max(0, len(found) - MOST_RANGES),
            [it.name for it, seen in zip(self._blocks, self._seen, strict=True) if seen is None],
        )


def _private(capture: CaptureFile, name: str, facts: BlockFacts, block: Block) -> Words:
    """The RAMBlock's private map; one that is all or nothing needs no bitmap."""
    if facts.npages != block.npages:
        text = f"{block.name} has {facts.npages} pages in the capture, {block.npages} in the stream"
        raise InputError(f"{name}: {text}")
    if facts.private_pages in {0, facts.npages}:
        return ones(block.npages) if facts.private_pages else zeros(block.npages)
    if "private" not in capture.kinds(block.name):
        text = (
            f"the capture does not tell which pages of {block.name} are private: it has no bitmap"
        )
        raise InputError(f"{name}: {text}")
    return capture.bitmap("private", block.name)


def _note(
    seen: NDArray[np.uint8], private: Words, pages: NDArray[np.int64], encrypted: NDArray[np.bool_]
) -> None:
    """Of a page that comes twice, what is true of the last time is what stays of _AT_LAST."""
    is_private = bits_at(private, pages)
    wrong = np.where(is_private, _IN_CLEAR, _ENCRYPTED) * (is_private != encrypted)
    np.bitwise_or.at(seen, pages, (wrong | _SENT).astype(np.uint8))
    at_last = np.where(wrong > 0, _AT_LAST, 0).astype(np.uint8)
    seen[pages] = seen[pages] & np.uint8(0xFF ^ _AT_LAST) | at_last


def _pages(seen: Sequence[NDArray[np.uint8]], flag: int) -> int:
    return sum(int(np.count_nonzero(it & flag)) for it in seen)


def _ranges(block: str, seen: NDArray[np.uint8]) -> list[WrongRange]:
    """Runs of pages of which the same is wrong, in their order."""
    found: list[WrongRange] = []
    cases: list[tuple[int, Literal["private", "shared"]]] = [
        (_IN_CLEAR, "private"),
        (_ENCRYPTED, "shared"),
    ]
    for flag, was in cases:
        for last in (0, _AT_LAST):
            starts, ends = _runs(seen & (flag | _AT_LAST) == flag | last)
            found += [
                WrongRange(block, start, end - start, was, bool(last))
                for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
            ]
    return sorted(found, key=lambda it: it.page)


def _runs(bits: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    packed = np.packbits(np.pad(bits, (0, -bits.size % 64)), bitorder="little")
    return ranges(packed.view(np.uint64), bits.size)
