"""Guest memory as this host sees it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kvmenc.encstate.ciphertext import PAGE_BYTES
from kvmenc.errors import HostError, errno_name

if TYPE_CHECKING:
    from kvmenc.memory.slots import MemSlot

__all__ = ["HostMemory"]


class HostMemory:
    """Reads guest memory at the slots' host addresses, through /proc/PID/mem.

    Addresses that are not mapped are reported as unread, where a pointer would crash. Reading a
    page of a file or of shared memory that was never touched allocates it.

    Args:
        pid: the process that owns the guest; by default this one. Another one needs the right to
            ptrace it.

    Raises:
        HostError: the process is gone, or may not be read.
    """

    def __init__(self, pid: int | None = None) -> None:
        path = Path("/proc") / ("self" if pid is None else str(pid)) / "mem"
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            why = errno_name(error.errno or 0)
            msg = f"cannot open {path}: {why}: needs a live process and the right to ptrace it"
            raise HostError(msg) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)

    def read_pages(self, slot: MemSlot, first_page: int, npages: int) -> bytes:
        """The bytes of ``npages`` pages of ``slot``; fewer where the memory is not mapped."""
        address = slot.userspace_addr + first_page * PAGE_BYTES
        try:
            return os.pread(self._fd, npages * PAGE_BYTES, address)
        except OSError:
            return b""
