"""Zero pages: counted where the pages that are there fit a budget, else estimated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.contents.bounds import Estimate, estimate
from kvmenc.memory.words import count, from_pages, ones

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmenc.contents.reader import Contents
    from kvmenc.contents.where import Rows
    from kvmenc.memory.slots import RamBlock
    from kvmenc.memory.words import Pages, Words

__all__ = ["ZeroCount", "count_zero_pages"]

# 64 GiB of 4 KiB pages: looking which of them are there takes 1 to 2 s.
_LOOK_AT_ALL_PAGES = 1 << 24


@dataclass(frozen=True, slots=True)
class ZeroCount(Estimate):
    """How many pages of a RAMBlock hold only zeros.

    Attributes:
        words: which ones, 1 = zero; None where they were estimated.
    """

    words: Words | None = None

    @property
    def exact(self) -> bool:
        """Counted, not estimated."""
        return self.words is not None


def count_zero_pages(
    contents: Contents, block: RamBlock, budget_pages: int, rng: np.random.Generator
) -> ZeroCount:
    """Count the pages of a RAMBlock that hold only zeros; pages never touched do.

    Pages swapped out, and what cannot be read, count as not zero: nobody looked at them.

    Args:
        contents: the guest's.
        block: the RAMBlock.
        budget_pages: read the contents of so many pages at most.
        rng: draws the sample, if there must be one: of the pages that are there, or of all in a
            block that is too large to look at each (64 GiB).
    """
    if block.npages > _LOOK_AT_ALL_PAGES:
        sample = _draw(block.npages, budget_pages, rng)
        zero = _zero_among(contents, block, sample)
        return _counted(zero, block.npages)
    present = contents.present(block)
    held = _pages_of(present, block.npages)
    absent = block.npages - held.size
    if held.size > budget_pages:
        sample = held[_draw(held.size, budget_pages, rng)]
        zero = _zero_among(contents, block, sample)
        return _counted(zero, held.size, absent)
    zero = _zero_among(contents, block, held)
    words = ones(block.npages) & ~present | from_pages(held[zero], block.npages)
    total = count(words, block.npages)
    return ZeroCount(total, total, total, words)


def _zero_among(contents: Contents, block: RamBlock, pages: Pages) -> NDArray[np.bool_]:
    zero = np.empty(pages.size, np.bool_)
    for some, rows, readable in contents.batches(block, pages):
        zero[some] = readable & _is_zero(rows)
    return zero


def _is_zero(rows: Rows) -> NDArray[np.bool_]:
    """Which rows hold only zeros; at the speed of memory."""
    zero: NDArray[np.bool_] = np.bitwise_or.reduce(rows.view(np.uint64), axis=1) == 0
    return zero


def _counted(zero: NDArray[np.bool_], population: int, known_zero: int = 0) -> ZeroCount:
    found = estimate(int(zero.sum()), zero.size, population) + known_zero
    return ZeroCount(found.pages, found.low_pages, found.high_pages)


def _draw(population: int, npages: int, rng: np.random.Generator) -> Pages:
    """``npages`` different numbers below ``population``, ascending; all, if there are no more."""
    drawn = rng.choice(population, min(npages, population), replace=False, shuffle=False)
    return np.sort(drawn)


def _pages_of(words: Words, npages: int) -> Pages:
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), count=npages, bitorder="little"))
