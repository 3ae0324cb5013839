"""What a file descriptor of KVM answers: a table from request number to method."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fakekvm.errors import oserror

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterator, Mapping

    from fakekvm.decode import Layout
    from fakekvm.host import Host
    from fakekvm.processmemory import ProcessMemory
    from fakekvm.scripts import Scripts
    from fakekvm.sevfirmware import Firmware

__all__ = ["Call", "Caller", "File", "Process", "Services"]


@dataclass(frozen=True, slots=True)
class Call:
    """How one request is carried out.

    Attributes:
        method: gets the argument: the struct if there is a ``layout``, else the number itself.
            What it opens it returns as a file; whoever serves the caller makes a descriptor of it.
        layout: the struct to copy in; EFAULT where it cannot be read.
        needs: the capability without which the host does not know the request.
    """

    method: Callable[[Any, Any], int | File]
    layout: Layout[Any] | None = None
    needs: int | None = None


class Process(Protocol):
    """A process that makes calls. One object stands for one address space (KVM compares mm's)."""

    @property
    def memory(self) -> ProcessMemory:
        """Its memory, where the addresses in arguments point to."""

    def file_of(self, fd: int) -> File | None:
        """The file behind one of its descriptors; None: not one of KVM's.

        Raises:
            OSError: EBADF: it has no such descriptor.
        """


def _never(_mask: int | None) -> bool:
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Caller:
    """Who makes one call.

    Attributes:
        process: whose memory and descriptors the argument means.
        is_signalled: whether a call that lasts must end, for a signal of the thread that makes it
            or because that is no more; gets the signals blocked meanwhile (bit n - 1 is signal n),
            None for those that are blocked anyway.
    """

    process: Process
    is_signalled: Callable[[int | None], bool] = _never


class Services(Protocol):
    """What files need of the kernel that they belong to."""

    host: Host
    firmware: Firmware
    unknown: Counter[tuple[str, int]]
    scripts: Scripts
    vm_numbers: Iterator[int]


class File:
    """An open file of KVM: /dev/kvm, a VM, a vCPU, a guest_memfd; or /dev/sev.

    Attributes:
        fd: the memory file that its descriptors have to be of, if that is not all the same.
    """

    kind: ClassVar[str]
    unknown_errno: ClassVar[int] = errno.ENOTTY
    calls: ClassVar[Mapping[int, Call]] = {}
    fd: int | None = None

    def __init__(self, services: Services) -> None:
        self.services = services

    def ioctl(self, request: int, arg: int, caller: Caller) -> int | File:
        """Carry out a request; a file is what it opened.

        Raises:
            OSError: with the kernel's errno.
        """
        self.check_caller(caller)
        return self.dispatch(request, arg, caller)

    def dispatch(self, request: int, arg: int, caller: Caller) -> int | File:
        """Find the request and carry it out."""
        call = self.calls.get(request)
        if call is None or (call.needs is not None and not self.services.host.has(call.needs)):
            self.services.unknown[self.kind, request] += 1
            raise oserror(self.unknown_errno)
        memory = caller.process.memory
        return call.method(self, call.layout.read(memory, arg) if call.layout else arg)

    def check_caller(self, caller: Caller) -> None:
        """Refuse processes that this file does not serve."""

    def closed(self) -> None:
        """Its last descriptor was closed."""
