"""Pages of a file that a process maps: memfd, shared memory, hugetlbfs, or a file on disk.

They are read from the file and not through the process, by pread on a descriptor of our own: a hole
gives zeros and stays a hole (Linux v6.12, mm/shmem.c, shmem_file_read_iter; fs/hugetlbfs/inode.c,
hugetlbfs_read_iter), and the process's page tables do not grow.
"""

from __future__ import annotations

import mmap
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.contents.syscalls import HUGETLBFS_MAGIC, TMPFS_MAGIC, filesystem_type, mincore
from kvmenc.contents.where import Where, stretches
from kvmenc.procfs import fd_links

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kvmenc.contents.where import Rows, Wheres
    from kvmenc.memory.words import Pages
    from kvmenc.procfs import Mapping

__all__ = ["FilePages", "open_mapped"]

_LONGEST = 1 << 15  # pages a call
_REACH = 64  # asking for so many pages costs about as much as another call


class FilePages:
    """The pages of a file, counted from its beginning.

    Whether a page is in memory is asked with mincore of a mapping of our own, which is never
    touched. hugetlbfs is not mapped, for that alone reserves huge pages, and cannot tell its holes
    from its data; so all of such a file counts as data if it has any. Reading holes is harmless.
    Shared memory on its way to swap, written there but still in memory, is read, and then has to be
    written again.

    Args:
        fd: opened for reading; closed with this object.
        page_size: in bytes.
    """

    def __init__(self, fd: int, page_size: int) -> None:
        self._fd = fd
        self._page_size = page_size
        self._npages = -(-os.fstat(fd).st_size // page_size)
        kind = filesystem_type(fd)
        self._in_swap = kind == TMPFS_MAGIC
        self._mapping = None
        if kind != HUGETLBFS_MAGIC and self._npages:
            self._mapping = mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ)

    def close(self) -> None:
        """Let go of the file."""
        if self._mapping is not None:
            self._mapping.close()
        os.close(self._fd)

    def look(self, pages: Pages) -> Wheres:
        """Where each page's data is; nothing is touched or read.

        Args:
            pages: in ascending order.
        """
        where = np.full(pages.size, Where.UNKNOWN, np.uint8)
        inside = pages[pages < self._npages]
        where[: inside.size] = self._look_inside(inside)
        return where

    def _look_inside(self, pages: Pages) -> Wheres:
        if self._mapping is None:
            held = Where.FILE if os.fstat(self._fd).st_blocks else Where.NOWHERE
            return np.full(pages.size, held, np.uint8)
        where = self._in_memory(self._mapping, pages) * np.uint8(Where.FILE)
        if not self._in_swap or _swap_is_used():
            missing = np.flatnonzero(where == Where.NOWHERE)
            for lo, hi in self._data_among(pages[missing]):
                where[missing[lo:hi]] = Where.AWAY
        return where

    def _in_memory(self, mapping: mmap.mmap, pages: Pages) -> NDArray[np.uint8]:
        start = np.frombuffer(mapping, np.uint8).ctypes.data
        found = np.empty(pages.size, np.uint8)
        scratch = np.empty(_LONGEST, np.uint8)
        for lo, hi in stretches(pages, _REACH, _LONGEST):
            first = int(pages[lo])
            states = scratch[: int(pages[hi - 1]) + 1 - first]
            mincore(start + first * self._page_size, states, self._page_size)
            found[lo:hi] = states[pages[lo:hi] - first]
        return np.bitwise_and(found, 1, out=found)

    def _data_among(self, pages: Pages) -> Iterator[tuple[int, int]]:
        """Slices of ``pages``, ascending, in which the file holds data, in memory or not."""
        for lo, hi in stretches(pages, 1, _LONGEST):
            start = at = int(pages[lo])
            end = start + hi - lo
            while at < end and (data := self._seek(at, os.SEEK_DATA)) < end:
                at = min(self._seek(data, os.SEEK_HOLE), end)
                yield lo + data - start, lo + at - start

    def _seek(self, page: int, whence: int) -> int:
        """The page in which the next data begins, or the first that lies in the next hole."""
        try:
            offset = os.lseek(self._fd, page * self._page_size, whence)
        except OSError:  # ENXIO: nothing of that kind any more
            return self._npages
        return (
            -(-offset // self._page_size) if whence == os.SEEK_HOLE else offset // self._page_size
        )

    def read(self, pages: Pages, rows: Rows) -> NDArray[np.bool_]:
        """Read pages of the file; returns which of them could be read."""
        readable = np.zeros(pages.size, np.bool_)
        for lo, hi in stretches(pages, 1, _LONGEST):
            with suppress(OSError):  # EIO: the memory or the disk is broken there
                offset = int(pages[lo]) * self._page_size
                nbytes = os.preadv(self._fd, [rows[lo:hi].data], offset)
                readable[lo : lo + nbytes // self._page_size] = True
        return readable


def open_mapped(pid: int, mapping: Mapping) -> int | None:
    """A new descriptor of the file that a process maps, None if it may not or must not be opened.

    Only regular files are: reading a device has effects. Tried first is /proc/PID/map_files, which
    needs CAP_CHECKPOINT_RESTORE, then the process's own descriptors.
    """
    paths = [f"/proc/{pid}/map_files/{mapping.start:x}-{mapping.end:x}"]
    links = fd_links(pid).items()
    paths += [f"/proc/{pid}/fd/{fd}" for fd, target in links if target == mapping.path]
    for path in paths:
        with suppress(OSError):
            found = Path(path).stat()
            if found.st_ino == mapping.inode and stat.S_ISREG(found.st_mode):
                return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    return None


def _swap_is_used() -> bool:
    """Whether any page of this machine is swapped out; if none is, there is no need to search."""
    used = [line.split()[-2] for line in Path("/proc/swaps").read_text().splitlines()[1:]]
    return any(int(kib) for kib in used)
