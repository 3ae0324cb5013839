"""What is kept here of VMs that a real KVM runs: as much as what is laid over them needs."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

from fakekvm import decode
from fakekvm.host import VM_DEFAULT
from fakekvm.supervisor.descriptors import VM_NAME, is_same, named
from fakekvm.vm import Vm

if TYPE_CHECKING:
    from fakekvm.calls import Caller, File, Services
    from fakekvm.supervisor.runarea import Announcement, RunArea
    from fakekvm.supervisor.tasks import Process
    from fakekvm.vcpu import Vcpu

__all__ = ["ShadowVm"]


class ShadowVm(Vm):
    """A VM of the fake's that never runs: its memslots, encryption bitmap, and state of SEV.

    Args:
        services: the machine laid over the real one.
        process: that the VM belongs to.
        fd: a descriptor of the real VM, here: kept, and closed with this. While it is open the real
            VM lives on, so ``is_held`` is to be asked from time to time.

    Attributes:
        fd: as given.
        process: as given.
        areas: of the vCPUs that have run, where announcements are looked for.
    """

    def __init__(self, services: Services, process: Process, fd: int) -> None:
        super().__init__(services, process, VM_DEFAULT)
        self.fd: int = fd
        self.process = process
        self.areas: list[RunArea] = []

    def note(self, request: int, arg: int, caller: Caller) -> None:
        """Do as the kernel will, if it will: its checks are made here too."""
        with suppress(OSError):
            super().dispatch(request, arg, caller)

    def dispatch(self, request: int, arg: int, caller: Caller) -> int | File:
        """Answer a request, as things are after what guests have announced."""
        for area in self.areas:
            self.catch_up(area)
        return super().dispatch(request, arg, caller)

    def catch_up(self, area: RunArea) -> None:
        """Do what the last exit of a vCPU announces, if that was not done."""
        with self.lock:
            found = area.take()
            if found is not None and self.enc is not None:
                self._flip(found)

    def _flip(self, told: Announcement) -> None:
        """What it returns is what the guest would get, which nobody tells it by a port."""
        assert self.enc is not None
        if not told.gpa % decode.PAGE_BYTES and told.npages:
            private = bool(told.attributes & decode.KVM_MAP_GPA_RANGE_ENCRYPTED)
            self.enc.set_range(told.gpa >> decode.PAGE_SHIFT, told.npages, private)

    def is_held(self) -> bool:
        """Whether the process is still there, and has a descriptor of the VM.

        No other process can ask anything of it.
        """
        pid = self.process.memory.pid
        return self.process.is_there() and any(
            _is_same(self.fd, pid, fd) for fd in named(pid, VM_NAME)
        )

    def closed(self) -> None:
        """The real VM may go, and with it the guest in the firmware."""
        for area in self.areas:
            area.close()
        self.areas.clear()
        self.vcpus.clear()
        self.sev.destroy()
        os.close(self.fd)

    def add_vcpu(self, vcpu_id: int) -> Vcpu:
        """It is counted, and never run."""
        vcpu = super().add_vcpu(vcpu_id)
        os.close(vcpu.fd)
        return vcpu

    def new_log(self, npages: int) -> None:
        """None: what is dirty is not asked here."""

    def memfd_for(self, region: decode.MemoryRegion) -> None:
        """None: no descriptor of the program's is one of the fake's."""


def _is_same(own: int, pid: int, fd: int) -> bool:
    try:
        return is_same(own, pid, fd)
    except OSError as error:
        return error.errno not in (errno.EBADF, errno.ESRCH)  # it cannot be told: better kept
