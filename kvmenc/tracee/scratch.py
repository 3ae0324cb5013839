"""Memory in the target for results and arguments, and how what a killed kvmenc left is told.

It lies at a random page of a 4 GiB stretch of addresses that nobody else asks for, and begins with
a header. The header names the thread that was last sent to write here: while that may still be on
its way, the memory must stay.
"""

from __future__ import annotations

import mmap
import secrets
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc import procfs, uapi
from kvmenc.errors import HostError
from kvmenc.tracee.copy import read_bytes, write_bytes
from kvmenc.tracee.frame import SystemCall

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HEADER_BYTES",
    "MAX_CALLS",
    "Scratch",
    "find_scratch",
    "map_call",
    "random_place",
    "unmap_call",
]

RANGE = range(0x6B76_0000_0000, 0x6B77_0000_0000)  # "kv"
MAX_CALLS = 500
_MAGIC = b"kvmenc 1"
_TID_BYTES = 8
_RESULTS_OFFSET = 64
HEADER_BYTES = mmap.PAGESIZE
_U64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Scratch:
    """Scratch memory in a process: a header, and room after it.

    Attributes:
        pid: the process.
        address: of the header.
        nbytes: of all.
        user: the thread that the header named when this was found; 0: none.
    """

    pid: int
    address: int
    nbytes: int
    user: int = 0

    @property
    def room_address(self) -> int:
        """The first address after the header."""
        return self.address + HEADER_BYTES

    @property
    def room_bytes(self) -> int:
        """How much there is after the header."""
        return self.nbytes - HEADER_BYTES

    @property
    def results_address(self) -> int:
        """Where results go, 8 bytes each, MAX_CALLS at most."""
        return self.address + _RESULTS_OFFSET

    def set_user(self, tid: int) -> None:
        """Name the thread that is about to be sent here; 0: none.

        Raises:
            OSError: ESRCH: the process has ended.
        """
        write_bytes(self.pid, self.address, _MAGIC + tid.to_bytes(_TID_BYTES, "little"))


def find_scratch(pid: int) -> Iterator[Scratch]:
    """Scratch memory in a process, whoever left it: of the right place, kind and beginning."""
    for mapping in procfs.mappings(pid):
        inside = mapping.start in RANGE and mapping.end <= RANGE.stop
        if inside and mapping.perms == "rw-p" and not mapping.path:
            with suppress(OSError):  # unmapped just now
                head = read_bytes(pid, mapping.start, len(_MAGIC) + _TID_BYTES)
                magic, user = head[: len(_MAGIC)], int.from_bytes(head[len(_MAGIC) :], "little")
                if magic in (_MAGIC, bytes(len(_MAGIC))):  # who mapped it may have died right then
                    yield Scratch(pid, mapping.start, mapping.end - mapping.start, user)


def random_place(pid: int, room_bytes: int) -> Scratch:
    """Where new scratch memory may go: a free place, picked at random.

    Raises:
        HostError: it is too much; no such process.
    """
    page = mmap.PAGESIZE
    nbytes = HEADER_BYTES + -(-room_bytes // page) * page
    if nbytes > len(RANGE) // 2:
        raise HostError(f"{room_bytes} bytes are too many to be mapped in process {pid}")
    taken = procfs.mappings(pid)
    while True:
        start = RANGE.start + secrets.randbelow((len(RANGE) - nbytes) // page) * page
        # A page is left free on both sides, so that no two ever become one mapping.
        if all(m.end < start or m.start > start + nbytes for m in taken):
            return Scratch(pid, start, nbytes)


def map_call(scratch: Scratch) -> SystemCall:
    """The call that maps it; fails with EEXIST, and harms nothing, if the place is taken."""
    flags = uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS | uapi.MAP_NORESERVE | uapi.MAP_FIXED_NOREPLACE
    access = uapi.PROT_READ | uapi.PROT_WRITE
    args = (scratch.address, scratch.nbytes, access, flags, _U64, 0)
    return SystemCall(uapi.SYS_mmap, args)


def unmap_call(scratch: Scratch) -> SystemCall:
    """The call that unmaps it."""
    return SystemCall(uapi.SYS_munmap, (scratch.address, scratch.nbytes))
