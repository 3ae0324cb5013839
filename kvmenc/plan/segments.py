"""RAM cut into segments, in the order in which it is sent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kvmenc.capture import BlockFacts

__all__ = ["Segments", "segments_of"]

#: Finer than this share of RAM the time of clearing is not followed.
_FINEST = 1 / 16


@dataclass(frozen=True, slots=True)
class Segments:
    """All RAM; each array has an entry, or a row, for each segment.

    Attributes:
        chunk: the number of the chunk of the dirty log it lies in; growing.
        block: the number of its RAMBlock.
        width: its share of all pages.
        pages: of each road, when nothing was sent yet: normal, zero, encrypted.
        dirty: written while the guest was watched: shared pages, private pages; None where a
            capture has no map.
    """

    chunk: NDArray[np.intp]
    block: NDArray[np.intp]
    width: NDArray[np.float64]
    pages: NDArray[np.float64]
    dirty: NDArray[np.float64] | None


def segments_of(blocks: Sequence[BlockFacts], clear_pages: int) -> Segments:
    """Cut RAM where chunks of the dirty log begin, and where a capture's map does.

    Args:
        blocks: the RAMBlocks.
        clear_pages: size of a chunk.
    """
    npages = sum(block.npages for block in blocks)
    most = max(clear_pages, npages * _FINEST)
    rows = [row for number, block in enumerate(blocks) for row in _rows(number, block, most)]
    table = np.array(rows)
    block, part = table[:, 0].astype(np.intp), table[:, 1]
    starts = np.append(True, (np.diff(block) != 0) | (np.diff(part) != 0))
    mapped = all(it.segments for it in blocks)
    return Segments(
        chunk=np.cumsum(starts) - 1,
        block=block,
        width=table[:, 2:5].sum(axis=1) / npages,
        pages=table[:, 2:5],
        dirty=table[:, 5:] if mapped else None,
    )


def _rows(number: int, block: BlockFacts, most: float) -> Iterator[tuple[float, ...]]:
    """Block, chunk in it, normal, zero, encrypted pages, and shared and private dirty ones."""
    if block.segments:
        yield from _mapped_rows(number, block, most)
        return
    zero = block.zero_pages or 0
    pages = (block.npages - block.private_pages - zero, zero, block.private_pages)
    count = math.ceil(block.npages / most)
    for chunk in range(count):
        yield number, chunk, *(of_road / count for of_road in pages), 0, 0


def _mapped_rows(number: int, block: BlockFacts, most: float) -> Iterator[tuple[float, ...]]:
    """Zero pages of which only the number is known lie among the shared ones that stayed clean."""
    unplaced = (block.zero_pages or 0) - sum(it.zero_pages for it in block.segments)
    clean = [it.npages - it.private_pages - it.dirty_shared_pages for it in block.segments]
    share = min(1.0, max(0, unplaced) / (sum(clean) or 1))
    start = 0
    for it, room in zip(block.segments, clean, strict=True):
        zero = it.zero_pages + share * room
        normal = it.npages - it.private_pages - zero
        dirty = (it.dirty_shared_pages, it.dirty_private_pages)
        yield number, start // most, normal, zero, it.private_pages, *dirty
        start += it.npages
