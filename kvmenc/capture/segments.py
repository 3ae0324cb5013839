"""Where in a RAMBlock which pages are, in short: a few numbers in place of bitmaps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.capture.model import SegmentFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmenc.memory.words import Words

__all__ = ["MAX_SEGMENTS", "segment_facts"]

#: Of a RAMBlock; all but the last are of one size, a multiple of 64 pages.
MAX_SEGMENTS = 32
_WORD_PAGES = 64


def segment_facts(
    npages: int, dirty: Words, private: Words, zero: Words | None
) -> tuple[SegmentFacts, ...]:
    """Count by segment.

    Args:
        npages: pages in the block; each bitmap has a bit for each, and none past them is set.
        dirty: written pages.
        private: private pages.
        zero: shared pages that hold only zeros; None: nobody looked.
    """
    words = -(-npages // _WORD_PAGES)
    stride = -(-words // MAX_SEGMENTS)
    starts = np.arange(0, words, stride)
    ends = np.minimum((starts + stride) * _WORD_PAGES, npages)
    counts = (
        ends - starts * _WORD_PAGES,
        _counts(private, starts),
        np.zeros(len(starts), np.int64) if zero is None else _counts(zero & ~private, starts),
        _counts(dirty & private, starts),
        _counts(dirty & ~private, starts),
    )
    return tuple(SegmentFacts(*row) for row in np.array(counts).T.tolist())


def _counts(words: Words, starts: NDArray[np.int64]) -> NDArray[np.int64]:
    bits = np.bitwise_count(words).astype(np.int64)
    counts: NDArray[np.int64] = np.add.reduceat(bits, starts)
    return counts
