"""Regions: which mapping of the process shows which pages of a RAMBlock, and how to see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.contents.filepages import FilePages, open_mapped
from kvmenc.contents.process import ProcessPages
from kvmenc.contents.where import Where
from kvmenc.procfs import mappings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kvmenc.contents.where import Rows, Wheres
    from kvmenc.memory.slots import RamBlock
    from kvmenc.memory.words import Pages
    from kvmenc.procfs import Mapping

__all__ = ["Backings", "Region"]


@dataclass(frozen=True, slots=True)
class Region:
    """A run of pages of a RAMBlock with one backing.

    Anonymous memory is the process's alone. Shared memory and shared files are the file's alone. Of
    a private mapping of a file the process has the pages that it wrote, the file has the others. Of
    a file that cannot be opened only what the process has is seen; of a device's memory not even
    that, for pagemap leaves it out.

    Attributes:
        block_page: its first page, counted from the block's first.
        npages: its length in pages.
        rest: where the data is of pages that neither the process nor the file has.
        process: whose page tables are asked first; None for shared memory and for gaps.
        process_shift: from a page of the block to one of the process.
        file: asked for what the process does not have.
        file_shift: from a page of the block to one of the file.
    """

    block_page: int
    npages: int
    rest: Where
    process: ProcessPages | None = None
    process_shift: int = 0
    file: FilePages | None = None
    file_shift: int = 0

    @property
    def end(self) -> int:
        """The first page of the block after it."""
        return self.block_page + self.npages

    def look(self, pages: Pages) -> Wheres:
        """Where the data of each of these pages of the block is; they are in ascending order."""
        where = np.zeros(pages.size, np.uint8)
        if self.process is not None:
            where = self.process.look(pages + self.process_shift)
        missing = where == Where.NOWHERE
        if self.file is not None:
            where[missing] = self.file.look(pages[missing] + self.file_shift)
        else:
            where[missing] = self.rest
        return where

    def read(self, pages: Pages, where: Wheres, rows: Rows) -> NDArray[np.bool_]:
        """Read pages that were just looked at; those never touched are zero without reading.

        Returns:
            Which rows are the pages' contents; the others mean nothing.
        """
        readable: NDArray[np.bool_] = where == Where.NOWHERE
        backings = (
            (Where.PROCESS, self.process, self.process_shift),
            (Where.FILE, self.file, self.file_shift),
        )
        for place, backing, shift in backings:
            here = where == place
            if backing is None or not here.any():
                continue
            if here.all():
                return backing.read(pages + shift, rows)
            some = np.empty((np.count_nonzero(here), rows.shape[1]), np.uint8)
            readable[here] = backing.read(pages[here] + shift, some)
            rows[here] = some
        rows[where == Where.NOWHERE] = 0
        return readable


class Backings:
    """What backs the memory of a process, as it is mapped now.

    Args:
        pid: the process.
        page_size: in bytes.

    Raises:
        HostError: the process is gone, or may not be looked into.
    """

    def __init__(self, pid: int, page_size: int) -> None:
        self._pid = pid
        self._page_size = page_size
        self._mappings = mappings(pid)
        self._files: dict[tuple[str, int], FilePages | None] = {}
        self._process = ProcessPages(pid, page_size)

    def close(self) -> None:
        """Let go of the process and its files."""
        self._process.close()
        for file in filter(None, self._files.values()):
            file.close()

    def check_readable(self) -> None:
        """Make sure that the process's memory may be read.

        Raises:
            HostError: it may not.
        """
        self._process.check_readable()

    def regions_of(self, block: RamBlock) -> Iterator[Region]:
        """All pages of a RAMBlock, ascending; what is not mapped readable is a gap."""
        first, page = block.host_addr // self._page_size, 0
        for mapping in self._mappings:
            start = max(mapping.start // self._page_size - first, 0)
            end = min(mapping.end // self._page_size - first, block.npages)
            if start >= end or "r" not in mapping.perms:
                continue
            if page < start:
                yield Region(page, start - page, Where.UNKNOWN)
            yield self._mapped(mapping, first, start, end)
            page = end
        if page < block.npages:
            yield Region(page, block.npages - page, Where.UNKNOWN)

    def _mapped(self, mapping: Mapping, first: int, start: int, end: int) -> Region:
        anonymous = mapping.inode == 0
        file = None if anonymous else self._file_of(mapping)
        private = mapping.perms.endswith("p")
        return Region(
            start,
            end - start,
            rest=Where.NOWHERE if anonymous else Where.UNKNOWN,
            process=self._process if private or file is None else None,
            process_shift=first,
            file=file,
            file_shift=first + (mapping.offset - mapping.start) // self._page_size,
        )

    def _file_of(self, mapping: Mapping) -> FilePages | None:
        key = mapping.device, mapping.inode
        if key not in self._files:
            fd = open_mapped(self._pid, mapping)
            self._files[key] = None if fd is None else FilePages(fd, self._page_size)
        return self._files[key]
