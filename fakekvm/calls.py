"""What a file descriptor of KVM answers: a table from request number to method."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fakekvm.errors import oserror

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Mapping

    from fakekvm.decode import Layout
    from fakekvm.host import Host
    from fakekvm.processmemory import ProcessMemory
    from fakekvm.sevfirmware import Firmware

__all__ = ["Call", "File", "Services"]


@dataclass(frozen=True, slots=True)
class Call:
    """How one request is carried out.

    Attributes:
        method: gets the argument: the struct if there is a ``layout``, else the number itself.
        layout: the struct to copy in; EFAULT where it cannot be read.
        needs: the capability without which the host does not know the request.
    """

    method: Callable[[Any, Any], int]
    layout: Layout[Any] | None = None
    needs: int | None = None


class Services(Protocol):
    """What files need of the kernel that they belong to."""

    host: Host
    firmware: Firmware
    unknown: Counter[tuple[str, int]]

    def install(self, file: File, fd: int) -> int:
        """Make ``fd`` a descriptor of ``file``; returns it."""

    def file_of(self, fd: int) -> File | None:
        """The file behind ``fd``."""


class File:
    """An open file of KVM: /dev/kvm, a VM, a vCPU, a guest_memfd; or /dev/sev."""

    kind: ClassVar[str]
    unknown_errno: ClassVar[int] = errno.ENOTTY
    calls: ClassVar[Mapping[int, Call]] = {}

    def __init__(self, services: Services) -> None:
        self.services = services

    def ioctl(self, request: int, arg: int, memory: ProcessMemory) -> int:
        """Carry out a request of the process whose memory this is.

        Raises:
            OSError: with the kernel's errno.
        """
        self.check_caller(memory)
        return self.dispatch(request, arg, memory)

    def dispatch(self, request: int, arg: int, memory: ProcessMemory) -> int:
        """Find the request and carry it out."""
        call = self.calls.get(request)
        if call is None or (call.needs is not None and not self.services.host.has(call.needs)):
            self.services.unknown[self.kind, request] += 1
            raise oserror(self.unknown_errno)
        return call.method(self, call.layout.read(memory, arg) if call.layout else arg)

    def check_caller(self, memory: ProcessMemory) -> None:
        """Refuse processes that this file does not serve."""

    def closed(self) -> None:
        """Its last descriptor was closed."""
