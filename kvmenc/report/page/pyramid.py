"""Bitmaps in a shape that a page can carry: counts of cells for all, single pages where they fit.

A guest of 1 TiB has 32 MiB for each bitmap. Whoever looks at all of it sees some thousand cells,
and whoever looks at single pages sees few of them. So there are counts of at most ``MOST_CELLS``
cells, and the bits themselves by stretches, each packed alone, so that only what is looked at has
to be unpacked. Where the stretches together are too large, those that take most are left out.
"""

from __future__ import annotations

import heapq
import zlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.memory.words import WORD, ones, zeros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from kvmenc.capture import BitmapKind, BlockFacts
    from kvmenc.memory.words import Words

    #: A row for each cell; columns as in ``COLUMNS``.
    Counts = NDArray[np.uint32]

__all__ = ["COLUMNS", "MOST_CELLS", "STRETCH_PAGES", "Detail", "PageBits", "cell_pages_for"]

#: Pages of a stretch: 128 KiB of each bitmap, which a browser unpacks in a few milliseconds.
STRETCH_PAGES = 2**20
#: Of all RAMBlocks together, but for one more in each.
MOST_CELLS = 2**16
#: What is counted in a cell. Zero pages are shared ones; dirty ones may be zero.
COLUMNS = ("private", "zero", "dirty_private", "dirty_shared")

_STRETCH_WORDS = STRETCH_PAGES // 64
#: Above it little is gained: bitmaps of 1 TiB become 7 MiB by level 1 in a fifth of the time in
#: which level 6 makes 5 MiB.
_LEVEL = 1


def cell_pages_for(npages: int) -> int:
    """Pages in a cell of a guest of so many: the least power of two, of whole words."""
    return max(64, 1 << max(0, (npages - 1) // MOST_CELLS).bit_length())


class PageBits(NamedTuple):
    """What is known of each page of a RAMBlock; ``words_for(npages)`` words each.

    Attributes:
        private: its private pages.
        zero: its zero pages, all of them shared.
        dirty: its written pages.
    """

    private: Words
    zero: Words
    dirty: Words

    @classmethod
    def of(cls, block: BlockFacts, bitmaps: Mapping[BitmapKind, Words]) -> PageBits | None:
        """From the bitmaps that there are; None where they do not say which pages are private."""
        private = bitmaps.get("private")
        if private is None:
            if block.private_pages not in {0, block.npages} or not bitmaps:
                return None
            private = (ones if block.private_pages else zeros)(block.npages)
        nothing = zeros(block.npages)
        zero = bitmaps.get("zero", nothing) & ~private
        return cls(private, zero, bitmaps.get("dirty", nothing))

    def stretches(self) -> Iterator[PageBits]:
        """Views of ``STRETCH_PAGES`` each, the last one perhaps smaller."""
        for at in range(0, self.private.size, _STRETCH_WORDS):
            yield PageBits(*(words[at : at + _STRETCH_WORDS] for words in self))

    def counts(self, cell_pages: int) -> Counts:
        """Count each cell.

        Args:
            cell_pages: of a cell, a multiple of 64 that divides ``STRETCH_PAGES``.
        """
        return np.concatenate([_counts(it, cell_pages // 64) for it in self.stretches()])

    def packed(self) -> bytes:
        """The three bitmaps one after the other, deflated (RFC 1951)."""
        packer = zlib.compressobj(_LEVEL, wbits=-zlib.MAX_WBITS)
        parts = [packer.compress(np.ascontiguousarray(words, WORD).data) for words in self]
        return b"".join([*parts, packer.flush()])


def _counts(bits: PageBits, cell_words: int) -> Counts:
    private, zero, dirty = bits
    starts = np.arange(0, private.size, cell_words)
    columns = [
        np.add.reduceat(np.bitwise_count(words), starts, dtype=np.uint32)
        for words in (private, zero, dirty & private, dirty & ~private)
    ]
    return np.stack(columns, axis=1)


class Detail:
    """Packed stretches that together fit into a room; what takes most is left out first.

    Args:
        room_bytes: for all of them, as base64.
        update: told how many pages have been offered so far.

    Attributes:
        stretches: offered so far.
        left_out_pages: of those that are not kept.
    """

    def __init__(
        self, room_bytes: int, update: Callable[[float], object] = lambda _pages: None
    ) -> None:
        self.stretches = self.left_out_pages = self._offered_pages = 0
        self._update = update
        self._room_bytes, self._used_bytes = room_bytes, 0
        # The largest first: (-bytes, block, number, pages, data).
        self._kept: list[tuple[int, int, int, int, bytes]] = []

    def offer(self, block: int, bits: PageBits, npages: int) -> None:
        """Keep the stretches of the RAMBlock at this index as far as there is room."""
        for number, stretch in enumerate(bits.stretches()):
            pages = min(STRETCH_PAGES, npages - number * STRETCH_PAGES)
            data = stretch.packed()
            size = -(-len(data) // 3) * 4
            self.stretches += 1
            self._used_bytes += size
            heapq.heappush(self._kept, (-size, block, number, pages, data))
            while self._used_bytes > self._room_bytes:
                self._drop()
            self._offered_pages += pages
            self._update(self._offered_pages)

    def _drop(self) -> None:
        size, _, _, pages, _ = heapq.heappop(self._kept)
        self._used_bytes += size
        self.left_out_pages += pages

    @property
    def left_out(self) -> int:
        """Stretches that are not kept."""
        return self.stretches - len(self._kept)

    def kept(self) -> Iterator[tuple[int, int, bytes]]:
        """Index of the RAMBlock, number of the stretch in it, and the packed bits; in order."""
        for _, block, number, _, data in sorted(self._kept, key=lambda it: it[1:3]):
            yield block, number, data
