"""A guest of one large slot, for what only shows at size: time, memory, many chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.sync import GuestMaps
from kvmenc.memory.words import zeros

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.memory.sync import SyncReport
    from kvmenc.memory.words import Words

FIRST_PAGE = 13  # of the slot, in its RAMBlock: no multiple of 64, so every word is shifted


class Ready:
    """A source whose ioctls are over: its words are there already."""

    name = "ready"

    def __init__(self, words: Words) -> None:
        self.words = words

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        yield slots[0], self.words


class BigGuest:
    """The guest, two states of its pages to flip between, and its maps after a first sync."""

    def __init__(self, npages: int, *, dirty_share: float, private_share: float) -> None:
        rng = np.random.default_rng(2019)
        base = 0x7F00_0000_0000
        slot = MemSlot(0, 0x100, npages, base + FIRST_PAGE * 4096)
        self.dirty = Ready(random_words(rng, npages, dirty_share))
        self.private = Ready(random_words(rng, npages, private_share))
        self._other = Ready(random_words(rng, npages, private_share))
        self.maps = GuestMaps(Layout([slot], [RamBlock("ram", npages + 50, base)]))
        self.sync()

    def sync(self) -> SyncReport:
        """A sync in which no page flips."""
        return self.maps.sync(self.dirty, self.private)

    def flip_and_sync(self) -> SyncReport:
        """A sync in which pages all over the guest flip."""
        self.private, self._other = self._other, self.private
        return self.sync()

    def check_a_sync(self) -> None:
        """Compare a sync with one done on whole arrays of booleans, a page each."""
        self.maps.clear_dirty()
        before, report = pages(self.private.words), self.flip_and_sync()
        private = pages(self.private.words)
        flipped = before ^ private
        dirty = pages(self.dirty.words) | flipped
        assert report.flipped_pages == np.count_nonzero(flipped)
        assert report.dirty_private_pages == np.count_nonzero(dirty & private)
        assert report.dirty_shared_pages == np.count_nonzero(dirty & ~private)
        for found, expected, around in (
            (self.maps.dirty["ram"].words, dirty, False),
            (self.maps.private["ram"].words, private, True),
        ):
            in_block = np.full(dirty.size + 50, around)
            in_block[FIRST_PAGE : FIRST_PAGE + dirty.size] = expected
            packed = np.packbits(in_block, bitorder="little")
            assert (found.view(np.uint8)[: packed.size] == packed).all()


def pages(words: Words) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """A bitmap as one boolean a page."""
    return np.unpackbits(words.view(np.uint8), bitorder="little").view(np.bool_)


def random_words(rng: np.random.Generator, npages: int, share: float) -> Words:
    """A bitmap in which about ``share`` (in 256ths) of all pages are set, at random."""
    threshold = round(share * 256)
    words = zeros(npages)
    for bit in range(8):  # for 64 pages at once: is a random number of 8 bits below the threshold?
        plane = rng.integers(0, 1 << 64, words.size, np.uint64)
        words = words | ~plane if threshold >> bit & 1 else words & ~plane
    return words
