"""What a fake kernel is apart from anybody's descriptors: its host, firmware, guests and counts."""

from __future__ import annotations

import errno
import itertools
import os
from collections import Counter
from typing import TYPE_CHECKING

from fakekvm.errors import oserror
from fakekvm.faults import Fault, Faults
from fakekvm.host import Host
from fakekvm.scripts import Idle
from fakekvm.sevdevice import SevDevice
from fakekvm.sevfirmware import Firmware
from fakekvm.system import System

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from fakekvm.calls import Caller, File
    from fakekvm.scripts import Scripts

__all__ = ["KVM_PATH", "SEV_PATH", "Machine"]

KVM_PATH, SEV_PATH = "/dev/kvm", "/dev/sev"


class Machine:
    """Gives the files that answer; who serves a process makes descriptors of them.

    Args:
        host: what kind of machine this is.
        scripts: what new vCPUs execute.
        faults: what goes wrong on it.
        seed: of what goes wrong by chance.

    Attributes:
        host: as given.
        firmware: its SEV firmware, not reachable on hosts without SEV.
        scripts: as given.
        faults: what goes wrong; may be replaced.
        unknown: how often each (kind of file, request number) was asked for that it does not have.
        vm_numbers: the numbers of the VMs to come.
    """

    def __init__(
        self,
        host: Host | None = None,
        scripts: Scripts | None = None,
        faults: Iterable[Fault] = (),
        seed: int = 0,
    ) -> None:
        self.host = host or Host()
        self.firmware = Firmware(self.host)
        self.scripts = scripts or Idle()
        self.faults = Faults(faults, self.host, seed)
        self.unknown: Counter[tuple[str, int]] = Counter()
        self.vm_numbers: Iterator[int] = itertools.count()

    def has_device(self, path: str) -> bool:
        """Whether there is a device of this path."""
        if self.host.open_errno == errno.ENOENT:
            return False
        return path == KVM_PATH or (path == SEV_PATH and self.host.sev)

    def open_file(self, path: str, flags: int) -> File:
        """Open /dev/kvm or /dev/sev.

        Raises:
            OSError: what the host fails with; ENOENT for any other path.
        """
        if not self.has_device(path):
            raise oserror(errno.ENOENT)
        if self.host.open_errno:
            raise oserror(self.host.open_errno)
        writable = flags & os.O_ACCMODE != os.O_RDONLY
        return System(self) if path == KVM_PATH else SevDevice(self, writable=writable)

    def carry_out(self, file: File, request: int, arg: int, caller: Caller) -> int | File:
        """A request on one of its files: every ioctl comes by here. A file is what it opened.

        Raises:
            OSError: with the kernel's errno.
        """
        self.faults.meet(file, request, arg, caller)
        return file.ioctl(request, arg, caller)
