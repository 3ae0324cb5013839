"""How often QEMU's cursor went over RAM.

It goes from page to page in the order of the block table, after a sync on from where it was, and
from the end to the beginning (QEMU 7.2, migration/ram.c, ``find_dirty_block``). So a page that
comes after one that stands behind it begins a new pass. A vendor batch of encrypted pages is sent
after the pages in the clear between them: the two are told apart, and the one with more passes
counts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.stream.batch import Kind

if TYPE_CHECKING:
    from kvmenc.memory.words import Pages
    from kvmenc.stream.batch import Batch

__all__ = ["Passes"]


class Passes:
    """Counts them."""

    def __init__(self) -> None:
        self._last = [-1, -1]
        self._back = [0, 0]

    @property
    def count(self) -> int:
        """So far; none before the first page."""
        return 1 + max(self._back) if max(self._last) >= 0 else 0

    def add(self, batch: Batch) -> None:
        """Pages are sent."""
        encrypted = batch.kinds == Kind.ENCRYPTED
        for which, of_road in enumerate((~encrypted, encrypted)):
            if of_road.all():
                self._add(which, batch.ordinals)
            elif of_road.any():
                self._add(which, batch.ordinals[of_road])

    def _add(self, which: int, ordinals: Pages) -> None:
        back = int(np.count_nonzero(ordinals[1:] <= ordinals[:-1]))
        self._back[which] += back + int(ordinals[0] <= self._last[which])
        self._last[which] = int(ordinals[-1])
