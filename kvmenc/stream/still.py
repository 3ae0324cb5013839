"""A file that is mapped, not read: of a page that is only gone past, its bytes are not copied.

Who maps a file dies by SIGBUS where it is made shorter meanwhile, or cannot be read. So it is done
under a lease (fcntl(2), F_SETLEASE): the kernel grants it while nobody has the file open to write,
and holds whoever wants to change it until the lease is given back, for 45 seconds at most; and each
piece is brought into memory first, which tells errors as such (madvise(2), MADV_POPULATE_READ,
Linux 5.14).
"""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import RawIOBase

__all__ = ["StillFile"]

#: include/uapi/asm-generic/mman-common.h; Python has no name for it.
_MADV_POPULATE_READ = 22


class StillFile:
    """A file that the kernel keeps as it is, as long as pieces are asked for.

    Args:
        file: a regular file, opened for reading.

    Attributes:
        size_bytes: the file's.

    Raises:
        OSError: it is none, it is another user's, someone has it open to write, or its file system
            knows no leases.
    """

    def __init__(self, file: RawIOBase) -> None:
        self._file = file
        # The kernel tells that the lease is wanted back by SIGIO, which would kill.
        fcntl.fcntl(file, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        self.size_bytes = os.fstat(file.fileno()).st_size

    def piece(self, offset: int, most_bytes: int) -> mmap.mmap:
        """Some of it, in memory: from a multiple of ALLOCATIONGRANULARITY on.

        Raises:
            OSError: someone wants to change the file, or it cannot be read.
        """
        if fcntl.fcntl(self._file, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            raise InterruptedError("the lease is wanted back")
        size = min(most_bytes, self.size_bytes - offset)
        found = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=offset)
        found.madvise(_MADV_POPULATE_READ)
        return found

    def release(self) -> None:
        """Others may change it from now on; pieces are not to be looked at any more."""
        with suppress(BlockingIOError):  # the kernel has taken it, after the time that it gives
            fcntl.fcntl(self._file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
