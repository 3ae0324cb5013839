"""Where a page's data is, and stretches of pages that are looked at in one go."""

from __future__ import annotations

from enum import IntEnum
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.memory.words import Pages

__all__ = ["Rows", "Where", "Wheres", "stretches"]

Rows = NDArray[np.uint8]
"""Contents, a row a page: shape (npages, page size)."""

Wheres = NDArray[np.uint8]
"""A ``Where`` for each page."""


class Where(IntEnum):
    """Where a page's data is."""

    NOWHERE = 0  # never touched: it reads as zero, and reading it in the process would allocate it
    PROCESS = 1  # in memory, in the process's page tables
    FILE = 2  # in memory, in the file that the process maps
    AWAY = 3  # swapped out, or on disk only: there is data, but reading would pull it in
    UNKNOWN = 4  # not mapped, a device's, or in a file that may not be opened


def stretches(pages: Pages, reach: int, longest: int) -> Iterator[tuple[int, int]]:
    """Cut a list of pages into stretches that one call can serve.

    Args:
        pages: in any order; only ascending ones share a stretch.
        reach: how far from the one before a page may lie, 1 for side by side.
        longest: of how many pages a stretch may span at most.

    Yields:
        Start and end (exclusive) of each stretch, as indices of ``pages``.
    """
    if not pages.size:
        return iter(())
    steps = np.diff(pages)
    cut = (steps < 1) | (steps > reach) | (np.diff(pages // longest) != 0)
    return pairwise([0, *(np.flatnonzero(cut) + 1).tolist(), pages.size])
