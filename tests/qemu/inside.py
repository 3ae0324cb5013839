"""A QEMU under test seen from outside: its threads, and its guest's memory through /proc.

Nothing here asks QEMU for anything, or holds it up.
"""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tests.qemu.guest import HARM_GPA, PAGE, PROGRESS_GPA

if TYPE_CHECKING:
    from numpy.typing import NDArray


def threads(pid: int) -> dict[int, str]:
    """The names of a process's threads; a vCPU of QEMU is ``CPU 0/KVM``."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(task.name): (task / "comm").read_text().strip() for task in tasks}


def cpu_s(pid: int, tid: int) -> float:
    """The CPU time that a thread has had."""
    runtime_ns, *_ = Path(f"/proc/{pid}/task/{tid}/schedstat").read_text().split()
    return int(runtime_ns) / 1e9


class GuestMemory:
    """Guest memory below 3 GiB, which lies in one piece in QEMU.

    Writing to it is no write of the guest's, nor of a device: it is in no dirty log.

    Args:
        pid: of QEMU.
        host_addr: where guest address 0 lies in it.
    """

    def __init__(self, pid: int, host_addr: int) -> None:
        self._fd = os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        self._host_addr = host_addr

    def close(self) -> None:
        os.close(self._fd)

    def read(self, gpa: int, size: int) -> bytes:
        return os.pread(self._fd, size, self._host_addr + gpa)

    def write(self, gpa: int, data: bytes) -> None:
        assert os.pwrite(self._fd, data, self._host_addr + gpa) == len(data)

    def word(self, gpa: int) -> int:
        """32 bits."""
        value: int = struct.unpack("<I", self.read(gpa, 4))[0]
        return value

    def progress(self) -> int:
        """How many rounds a Worker has done."""
        return self.word(PROGRESS_GPA)

    def harm(self) -> int:
        """In how many rounds a Worker found a register or a page that did not hold what it must."""
        return self.word(HARM_GPA)


def differing_pages(one: Path, other: Path) -> list[int]:
    """The pages in which two dumps of memory differ."""
    pages = [np.memmap(dump, np.uint8, "r").reshape(-1, PAGE) for dump in (one, other)]
    assert pages[0].shape == pages[1].shape
    differs: NDArray[np.bool_] = (pages[0] != pages[1]).any(axis=1)
    return [int(page) for page in np.flatnonzero(differs)]
