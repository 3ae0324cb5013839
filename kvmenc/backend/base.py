"""The one seam: who carries out an ioctl.

Everything above it is the same for the real /dev/kvm, for fakekvm, for another process's KVM, and
for a recording of any of them. What crosses the seam is what crosses into a kernel: a path, file
descriptors, request numbers and addresses. So a struct laid out wrongly fails behind every backend.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import mmap


class Backend(Protocol):
    """Carries out open, ioctl, mmap and close. Failures are plain ``OSError`` with an errno."""

    @property
    def name(self) -> str:
        """What a report calls it: ``local``, ``fake``, ..."""

    def open(self, path: str, flags: int) -> int:
        """Open a device node; returns a file descriptor."""

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """Issue ``request`` on ``fd``; ``arg`` is an integer or the address of the argument.

        The memory at ``arg`` (and any address inside it) must stay alive during the call.
        EINTR is raised like any errno: whether to call again is the caller's decision.
        """

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """Map ``length`` bytes of ``fd`` from ``offset``, shared, readable and writable."""

    def close(self, fd: int) -> None:
        """Close a file descriptor that this backend returned."""


def unmap(area: mmap.mmap) -> None:
    """Unmap ``area``; where a view of it is still held, it goes with the last view instead."""
    with suppress(BufferError):
        area.close()
