"""How often QEMU's cursor went over RAM.

It goes from page to page in the order of the block table, after a sync on from where it was, and
from the end to the beginning (QEMU 7.2, migration/ram.c, ``find_dirty_block``). It does so at most
once in a call: all that lies behind it is clean by then, and only a sync makes pages dirty. So a
call with a page that lies not behind where the call before it ended has begun a new pass. In what
order a call's pages come says nothing: threads that compress hand them over as they are ready, and
a vendor batch of encrypted pages comes after the pages in the clear between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmenc.memory.words import Pages
    from kvmenc.stream.batch import Batch

__all__ = ["Passes"]


class Passes:
    """Counts them.

    Attributes:
        count: so far, with those of calls that have ended; none before the first page.
    """

    def __init__(self) -> None:
        self.count = 0
        self._cursor = self._ahead = self._behind = -1

    def add(self, batch: Batch) -> None:
        """Pages are sent, in one call."""
        pages: Pages = batch.ordinals
        behind = pages[pages <= self._cursor]
        if behind.size < pages.size:
            self._ahead = max(self._ahead, int(pages.max()))
        if behind.size:
            self._behind = max(self._behind, int(behind.max()))

    def end_call(self) -> None:
        """The call is over."""
        last = max(self._ahead, self._behind)
        if last < 0:
            return
        self.count += 1 if self._behind >= 0 or not self.count else 0
        self._cursor = self._behind if self._behind >= 0 else last
        self._ahead = self._behind = -1
