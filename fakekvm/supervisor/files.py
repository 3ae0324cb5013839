"""The files that programs were given, found again by what their descriptors are of.

Each is a memory file. A program may dup, pass on or inherit its descriptors as it likes: what they
are of stays the same, so none of these calls has to be followed.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fakekvm.calls import File

__all__ = ["Files"]


class Files:
    """Files by the device and inode of their memory files."""

    def __init__(self) -> None:
        self._files: dict[tuple[int, int], File] = {}
        self._fds: dict[tuple[int, int], int] = {}  # of their memory files: our own

    def find(self, status: os.stat_result) -> File | None:
        """The file with this status; None: none of ours."""
        return self._files.get((status.st_dev, status.st_ino))

    def give(self, file: File) -> int:
        """A descriptor for a program; the caller closes it once the program has its own.

        Both it and the one kept here are opened anew: only so can ``_is_held`` tell them apart.
        """
        made = os.memfd_create(f"kvm-{file.kind}", os.MFD_CLOEXEC) if file.fd is None else file.fd
        kept, given = (os.open(f"/proc/self/fd/{made}", os.O_RDWR) for _ in range(2))
        os.close(made)
        status = os.fstat(kept)
        key = status.st_dev, status.st_ino
        self._files[key], self._fds[key] = file, kept
        return given

    def sweep(self) -> list[File]:
        """Close the files that nobody holds any more; returns them.

        Held is what has a descriptor anywhere, even one on its way through a socket, or a mapping.
        """
        dropped = [key for key, fd in self._fds.items() if not _is_held(fd)]
        return [self._drop(key) for key in dropped]

    def close_all(self) -> None:
        """Nobody is left who could hold any."""
        for key in list(self._fds):
            self._drop(key)

    def _drop(self, key: tuple[int, int]) -> File:
        file = self._files.pop(key)
        os.close(self._fds.pop(key))
        file.closed()
        return file


def _is_held(fd: int) -> bool:
    """Whether the file is open elsewhere: if so, no write lease on it can be had.

    Source: Linux v6.12, fs/locks.c, check_conflicting_open.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError:
        return True  # or it cannot be told: better kept too long
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
