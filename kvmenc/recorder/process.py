"""The descriptors of a process that the recording knows, and vCPUs' mappings, mapped here too."""

from __future__ import annotations

import os
from contextlib import suppress
from mmap import mmap
from typing import TYPE_CHECKING

from kvmenc.recorder.foreign import descriptor_of, link_of

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Process"]


class Process:
    """One process.

    Args:
        pid: its id.
        inherited: what its parent had when it was born.

    Attributes:
        pid: its id.
        fds: symbols by descriptor; several may be of one.
    """

    def __init__(self, pid: int, inherited: Process | None = None) -> None:
        self.pid = pid
        self.fds: dict[int, int] = dict(inherited.fds) if inherited else {}
        self._own: set[int] = set()
        self._areas: dict[int, list[mmap]] = {}

    def made(self, fd: int, symbol: int) -> None:
        """A call of it has given a descriptor."""
        self.fds[fd] = symbol
        self._own.add(symbol)

    def last_of(self, leaving: Iterable[int]) -> list[int]:
        """Descriptors are about to be closed: those symbols that it made and then has no more."""
        gone = [self.fds.pop(fd) for fd in leaving if fd in self.fds]
        last = {it for it in gone if it in self._own} - set(self.fds.values())
        for symbol in last:
            self._own.discard(symbol)
            self._unmap(symbol)
        return sorted(last)

    def map(self, fd: int, length: int, offset: int) -> mmap | None:
        """What a vCPU's descriptor maps, mapped here; None: it is gone, or another file.

        Reading it here takes a copy, however often; and whatever the process puts where it had
        its own mapping later is not read.
        """
        with suppress(OSError):
            own = descriptor_of(self.pid, fd)
            try:
                area = mmap(own, length, offset=offset)
            finally:
                os.close(own)
            self._areas.setdefault(self.fds[fd], []).append(area)
            return area
        return None

    def executed(self) -> list[int]:
        """It runs another program, and keeps what is not close-on-exec; what it has no more."""
        self.forget()
        return self.last_of([fd for fd in self.fds if not is_kvm(link_of(self.pid, fd))])

    def forget(self) -> None:
        """It has ended, or has another memory: nothing of it may be kept alive."""
        for symbol in list(self._areas):
            self._unmap(symbol)

    def _unmap(self, symbol: int) -> None:
        for area in self._areas.pop(symbol, ()):
            area.close()


def is_kvm(link: str) -> bool:
    """Whether a descriptor with this link is of KVM, or of a device that is recorded."""
    return link in DEVICES or link.startswith(("anon_inode:kvm-", "anon_inode:[kvm-"))


DEVICES = ("/dev/kvm", "/dev/sev")
