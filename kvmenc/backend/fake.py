"""fakekvm in this process, reached through the same bytes as the kernel."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

from fakekvm import Kernel

if TYPE_CHECKING:
    from fakekvm import Host

__all__ = ["FakeBackend"]


class FakeBackend:
    """A fake kernel; needs no rights and no hardware.

    Args:
        machine: a host, for a kernel of its own; or a kernel that there is.

    Attributes:
        kernel: the fake, to give its vCPUs something to run.
    """

    name = "fake"

    def __init__(self, machine: Host | Kernel) -> None:
        self.kernel = machine if isinstance(machine, Kernel) else Kernel(machine)

    def open(self, path: str, flags: int) -> int:
        """Open /dev/kvm of the fake."""
        return self.kernel.open(path, flags)

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """The fake reads and writes the memory at ``arg`` as a kernel would."""
        return self.kernel.ioctl(fd, request, arg)

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """A fake vCPU's descriptor is a memory file: mapping it is the real thing."""
        return mmap.mmap(fd, length, offset=offset)

    def close(self, fd: int) -> None:
        """Close a descriptor of the fake."""
        self.kernel.close(fd)
