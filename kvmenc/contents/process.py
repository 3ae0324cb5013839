"""Pages of a process by its own page tables: what is there, and what it holds.

Only pages that are there are read. Reading any other would fault it in: anonymous memory gets a
zero page, shared memory and files are allocated, swapped pages come back. A page that goes away
between the look and the read (the guest's balloon, swap) is faulted in after all; the two are some
microseconds apart.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import procfs
from kvmenc.contents.syscalls import process_vm_readv
from kvmenc.contents.where import Where, stretches
from kvmenc.errors import HostError, errno_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmenc.contents.where import Rows, Wheres
    from kvmenc.memory.words import Pages

__all__ = ["ProcessPages"]

# Linux v6.12, Documentation/admin-guide/mm/pagemap.rst. Without CAP_SYS_ADMIN the frame numbers in
# the other bits are zero, these two are not.
_PRESENT, _SWAPPED = 63, 62
_ENTRY_BYTES = 8

_LONGEST = 1 << 15  # 256 KiB of pagemap a call: the quickest of 64 KiB to 1 MiB
_REACH = 128  # walking so many entries costs about as much as another call

_MAX_SPANS = 1024  # UIO_MAXIOV, include/uapi/linux/uio.h


class ProcessPages:
    """The memory of a process, its pages counted from address 0.

    Args:
        pid: the process.
        page_size: in bytes.

    Raises:
        HostError: the process is gone, or may not be looked into.
    """

    def __init__(self, pid: int, page_size: int) -> None:
        self._pid = pid
        self._page_size = page_size
        path = f"/proc/{pid}/pagemap"
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise self._refused(f"open({path})", error) from error

    def close(self) -> None:
        """Let go of the process."""
        os.close(self._fd)

    def check_readable(self) -> None:
        """Make sure that its memory may be read.

        Raises:
            HostError: it may not.
        """
        nothing = np.zeros((1, 2), np.uint64)
        nothing[0, 1] = 1
        try:  # address 0 is never mapped (vm.mmap_min_addr), so this only asks for the right
            process_vm_readv(self._pid, nothing, np.empty(1, np.uint8))
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise self._refused("process_vm_readv", error) from error

    def look(self, pages: Pages) -> Wheres:
        """Where each page's data is, as far as the page tables know; nothing is touched.

        Raises:
            HostError: the process has ended.
        """
        entries = np.empty(pages.size, np.uint64)
        for lo, hi in stretches(pages, _REACH, _LONGEST):
            first, last = int(pages[lo]), int(pages[hi - 1])
            entries[lo:hi] = self._entries(first, last + 1 - first)[pages[lo:hi] - first]
        present = (entries >> np.uint64(_PRESENT)).astype(np.uint8)
        swapped = (entries >> np.uint64(_SWAPPED)).astype(np.uint8) & ~present & 1
        where: Wheres = present * np.uint8(Where.PROCESS) + swapped * np.uint8(Where.AWAY)
        return where

    def _entries(self, first: int, npages: int) -> NDArray[np.uint64]:
        data = os.pread(self._fd, npages * _ENTRY_BYTES, first * _ENTRY_BYTES)
        if len(data) != npages * _ENTRY_BYTES:
            raise HostError(f"process {self._pid} ended while its memory was looked at")
        return np.frombuffer(data, np.uint64)

    def read(self, pages: Pages, rows: Rows) -> NDArray[np.bool_]:
        """Read pages that a look has just found; returns which of them could be read.

        Raises:
            HostError: the process has ended, or may not be read.
        """
        readable = np.zeros(pages.size, np.bool_)
        for lo in range(0, pages.size, _MAX_SPANS):
            batch = slice(lo, lo + _MAX_SPANS)
            self._read_batch(pages[batch], rows[batch], readable[batch])
        return readable

    def _read_batch(self, pages: Pages, rows: Rows, readable: NDArray[np.bool_]) -> None:
        done = 0
        while done < pages.size:
            read = self._read_some(pages[done:], rows[done:])
            readable[done : done + read] = True
            done += read + 1  # the one after cannot be read, if there is one

    def _read_some(self, pages: Pages, rows: Rows) -> int:
        """How many pages could be read before the first that could not."""
        starts = np.flatnonzero(np.diff(pages, prepend=pages[:1] - 2) != 1)
        runs = np.diff(starts, append=pages.size)
        spans = np.stack([pages[starts], runs], axis=1).astype(np.uint64)
        try:
            nbytes = process_vm_readv(self._pid, spans * np.uint64(self._page_size), rows)
        except OSError as error:
            if error.errno == errno.EFAULT:
                return 0
            raise self._refused("process_vm_readv", error) from error
        return nbytes // self._page_size

    def _refused(self, what: str, error: OSError) -> HostError:
        if error.errno in {errno.ENOENT, errno.ESRCH}:
            return HostError(f"there is no process {self._pid}")
        return procfs.no_permission(self._pid, f"{what}: {errno_name(error.errno or 0)}")
