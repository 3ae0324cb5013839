"""Another process whose memory the tests look at, and what that memory costs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kvmenc import procfs
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from tests.contents import child

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    Fill = dict[int, int]

PAGE = child.PAGE


class Footprint(NamedTuple):
    """What a process's memory takes of the machine's."""

    rollup: dict[str, int]
    resident_pages: int
    page_tables: str
    file_blocks: tuple[int, ...]


class Target:
    """A process with memory of a kind; a guest of one RAMBlock and one memslot.

    Attributes:
        pid: its process id.
        block: all of the memory.
        slot: the memslot over all of it.
        layout: of the two.
    """

    def __init__(self, process: subprocess.Popen[str], npages: int) -> None:
        self._process = process
        self.pid = process.pid
        address = int(self._answer())
        self.block = RamBlock("pc.ram", npages, address)
        self.slot = MemSlot(0, 0, npages, address)
        self.layout = Layout([self.slot], [self.block], PAGE)
        self._do("nothing")  # its first command is what it takes memory for

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def _do(self, command: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._answer() == "done\n"

    def write(self, fill: Fill) -> None:
        """Fill pages with a byte each."""
        for page, value in fill.items():
            self._do(f"write {page} {value}")

    def page_out(self) -> None:
        """Swap out all that can be."""
        self._do("pageout")

    def drop(self, page: int) -> None:
        """Give a page back, as a balloon does."""
        self._do(f"drop {page}")

    def make_unreadable(self, page: int) -> None:
        """PROT_NONE."""
        self._do(f"unreadable {page}")

    def become_nobody(self) -> None:
        """Give up all privileges, as a user's own process has none."""
        self._do("nobody")

    def footprint(self) -> Footprint:
        while procfs.state(self.pid) != "S":  # it answers before it waits again
            time.sleep(0.001)
        folder = Path("/proc") / str(self.pid)
        text = (folder / "smaps_rollup").read_text()
        lines = re.findall(r"^(\w+): +(\d+) kB", text, re.MULTILINE)
        rollup = {name: int(kib) for name, kib in lines if name in {"Rss", "Anonymous", "Swap"}}
        files = [entry for entry in folder.joinpath("fd").iterdir() if entry.is_file()]
        return Footprint(
            rollup,
            int((folder / "statm").read_text().split()[1]),
            re.findall(r"VmPTE:.*", (folder / "status").read_text())[0],
            tuple(entry.stat().st_blocks for entry in files),
        )

    def naively_read(self, npages: int) -> bytes:
        """Through /proc/PID/mem, whether there is anything or not."""
        fd = os.open(f"/proc/{self.pid}/mem", os.O_RDONLY)
        try:
            return os.pread(fd, npages * PAGE, self.block.host_addr)
        finally:
            os.close(fd)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def target(kind: str, npages: int, path: Path | None = None) -> Iterator[Target]:
    """A process with ``npages`` of memory of a kind that ``child`` knows."""
    arguments = [child.__file__, kind, str(npages), *([str(path)] if path else [])]
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Target(process, npages)
    finally:
        process.kill()
        process.communicate()


def page_of(value: int) -> bytes:
    return bytes([value]) * PAGE


def values_of(rows: NDArray[np.uint8]) -> list[int]:
    """The byte that each row is filled with; every byte of it is compared."""
    assert (rows == rows[:, :1]).all()
    return [int(value) for value in rows[:, 0]]
