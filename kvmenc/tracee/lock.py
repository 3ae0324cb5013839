"""One kvmenc at a time looks into a process."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kvmenc.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["lock_process"]


@contextmanager
def lock_process(pid: int) -> Iterator[None]:
    """Hold the process's lock: flock(2) of its folder in /proc. It ends with us, however we end.

    Raises:
        HostError: another process holds it; no such process.
    """
    try:
        folder = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"there is no process {pid}") from error
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = _holder(folder)
        os.close(folder)
        raise HostError(f"another kvmenc{holder} looks at process {pid}: end that first") from error
    try:
        yield
    finally:
        os.close(folder)


def _holder(folder: int) -> str:
    """Who holds it, if /proc/locks tells."""
    inode = str(os.fstat(folder).st_ino)
    for line in Path("/proc/locks").read_text().splitlines():
        fields = line.split()
        if fields[1] == "FLOCK" and fields[5].rpartition(":")[2] == inode:
            return f" (process {fields[4]})"
    return ""
