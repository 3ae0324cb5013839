"""Contents: the pages of a running guest, looked at from outside."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import numpy as np

from kvmenc.contents.regions import Backings
from kvmenc.contents.where import Where
from kvmenc.errors import HostError, LayoutError
from kvmenc.memory.words import zeros

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kvmenc.contents.regions import Region
    from kvmenc.contents.where import Rows, Wheres
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.slots import MemSlot, RamBlock
    from kvmenc.memory.words import Pages, Words

__all__ = ["Contents"]

# A look at so many pages takes 1 MiB of memory; a multiple of 64, so that they fill whole words.
_LOOK_PAGES = 1 << 17
_READ_PAGES = 512  # 2 MiB of contents stay in the cache between reading and looking at them


class Contents:
    """The pages of a running guest; a context manager.

    Absent pages are never touched, swapped ones not brought back, and devices' memory not read: the
    process's memory is as large after any of this as it was before. What is looked at may change
    meanwhile, for the guest runs; each page is read in one piece of time, not all at one time.

    Args:
        pid: the process whose guest it is. Reading its memory takes the right to ptrace it.
        layout: its memslots and RAMBlocks. Its mappings are looked up once, here: it is good for as
            long as the layout is.

    Attributes:
        layout: as given.

    Raises:
        HostError: the process is gone or may not be looked into; its pages are of another size than
            the layout's. The other methods raise it when the process ends.
        LayoutError: by the other methods: a RAMBlock or memslot is not part of the layout.
    """

    def __init__(self, pid: int, layout: Layout) -> None:
        size = os.sysconf("SC_PAGE_SIZE")
        if layout.page_size != size:
            raise HostError(f"this host's pages are of {size} bytes, not {layout.page_size}")
        self.layout = layout
        with ExitStack() as cleanup:
            backings = Backings(pid, size)
            cleanup.callback(backings.close)
            backings.check_readable()
            self._regions = {block: tuple(backings.regions_of(block)) for block in layout.blocks}
            self._cleanup = cleanup.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    def look(self, block: RamBlock, pages: Pages) -> Wheres:
        """Where the data of pages is; nothing is touched.

        Args:
            block: a RAMBlock of the layout.
            pages: of the block, in ascending order.

        Returns:
            A ``Where`` for each page.
        """
        where = np.empty(pages.size, np.uint8)
        for region, part in self._parts(block, pages):
            where[part] = region.look(pages[part])
        return where

    def present(self, block: RamBlock) -> Words:
        """Which pages of a RAMBlock hold data: 1 = not known to be zero, 0 = never touched.

        Takes some 20 ms for each GiB in pages of 4 KiB. Of hugetlbfs, all pages of a file that has
        any: it does not tell its holes.
        """
        words = zeros(block.npages)
        octets = words.view(np.uint8)
        for first in range(0, block.npages, _LOOK_PAGES):
            pages = np.arange(first, min(first + _LOOK_PAGES, block.npages))
            held = np.packbits(self.look(block, pages) != Where.NOWHERE, bitorder="little")
            octets[first // 8 :][: held.size] = held
        return words

    def read(
        self, block: RamBlock, pages: Pages, into: Rows | None = None
    ) -> tuple[Rows, NDArray[np.bool_]]:
        """The contents of pages.

        Args:
            block: a RAMBlock of the layout.
            pages: of the block, in ascending order.
            into: where to put the rows; C-contiguous, one for each page.

        Returns:
            Shape (npages, page size); and which rows are the pages' contents. A page never touched
            is zero, without being read. A page that is swapped out, not mapped or a device's is not
            read; its row means nothing.
        """
        rows = np.empty((pages.size, self.layout.page_size), np.uint8) if into is None else into
        readable = np.empty(pages.size, np.bool_)
        for region, part in self._parts(block, pages):
            where = region.look(pages[part])
            readable[part] = region.read(pages[part], where, rows[part])
        return rows, readable

    def batches(
        self, block: RamBlock, pages: Pages
    ) -> Iterator[tuple[slice, Rows, NDArray[np.bool_]]]:
        """The contents of many pages, as :meth:`read` gives them, some at a time.

        Yields:
            Which of ``pages``, their rows, valid until the next batch, and which rows are contents.
        """
        rows = np.empty((min(_READ_PAGES, pages.size), self.layout.page_size), np.uint8)
        for lo in range(0, pages.size, _READ_PAGES):
            some = slice(lo, min(lo + _READ_PAGES, pages.size))
            yield some, *self.read(block, pages[some], rows[: some.stop - lo])

    def read_pages(self, slot: MemSlot, first_page: int, npages: int) -> Rows:
        """The contents of pages of a memslot, a row a page, up to the first that is not read.

        A page never touched is zero: the host sees it so, and whether a private page was written
        nobody can tell from a page that does not exist.
        """
        rows = np.empty((npages, self.layout.page_size), np.uint8)
        done = 0
        for piece in self.layout.pieces_of(slot):
            skipped = first_page + done - piece.slot_page
            count = min(piece.npages - skipped, npages - done)
            if skipped < 0 or count <= 0:
                continue
            pages = np.arange(count) + (piece.block_page + skipped)
            _, readable = self.read(piece.block, pages, rows[done : done + count])
            done += int(readable.argmin()) if not readable.all() else count
            if not readable.all():
                break
        return rows[:done]

    def _parts(self, block: RamBlock, pages: Pages) -> Iterator[tuple[Region, slice]]:
        """The regions that some of ``pages`` lie in, and which."""
        if block not in self._regions:
            raise LayoutError(f"{block} at {block.host_addr:#x}: not in this layout")
        for region in self._regions[block]:
            lo, hi = np.searchsorted(pages, [region.block_page, region.end])
            if lo < hi:
                yield region, slice(lo, hi)
