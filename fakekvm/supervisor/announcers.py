"""Which real vCPU a KVM_RUN is of, and of which VM that is.

A vCPU's descriptor tells its id, and not its VM. But KVM_CREATE_VCPU, which does, is seen before it
is carried out; so a vCPU that was not met before is of the first VM in which one of that id was to
be made, and has not been met.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fakekvm.supervisor.descriptors import VCPU_NAME, copy_of, is_same, named
from fakekvm.supervisor.runarea import RunArea

if TYPE_CHECKING:
    from fakekvm.supervisor.shadow import ShadowVm
    from fakekvm.supervisor.tasks import Process, Task

__all__ = ["Announcers"]


class _Met(NamedTuple):
    vm: ShadowVm
    area: RunArea


class Announcers:
    """The vCPUs of all VMs.

    Args:
        port: at which guests announce.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._expected: list[tuple[ShadowVm, int]] = []
        self._met: list[_Met] = []
        self._last: dict[tuple[int, int], _Met] = {}

    def expect(self, vm: ShadowVm, vcpu_id: int) -> None:
        """A vCPU is about to be created."""
        for other, expected_id in self._expected:
            if expected_id == vcpu_id and other.process is vm.process:
                self._meet_all(vm.process, vcpu_id)  # before there are two that could be meant
                break
        self._expected.append((vm, vcpu_id))

    def before_run(self, task: Task, fd: int) -> None:
        """A thread is about to run what its descriptor ``fd`` is of, if that is a vCPU.

        Raises:
            OSError: it cannot be told what that is.
        """
        met = self._find(task, fd)
        if met is not None:
            met.vm.catch_up(met.area)
            met.area.arm()

    def forget(self, vm: ShadowVm) -> None:
        """A VM is gone."""
        self._expected = [it for it in self._expected if it[0] is not vm]
        self._met = [it for it in self._met if it.vm is not vm]
        self._last = {key: it for key, it in self._last.items() if it.vm is not vm}

    def _find(self, task: Task, fd: int) -> _Met | None:
        key = task.tid, fd
        met = self._last.get(key)
        if met is None or not is_same(met.area.fd, *key):
            met = self._search(task.tid, fd) or self._meet(task.process, fd)
            if met is not None:
                self._last[key] = met
        return met

    def _search(self, tid: int, fd: int) -> _Met | None:
        return next((it for it in self._met if is_same(it.area.fd, tid, fd)), None)

    def _meet_all(self, process: Process, vcpu_id: int) -> None:
        pid = process.memory.pid
        for fd in named(pid, f"{VCPU_NAME}{vcpu_id}"):
            with suppress(OSError):
                if self._search(pid, fd) is None:
                    self._meet(process, fd)

    def _meet(self, process: Process, fd: int) -> _Met | None:
        """A vCPU that runs for the first time."""
        name = str(Path(f"/proc/{process.memory.pid}/fd/{fd}").readlink())
        for place, (vm, vcpu_id) in enumerate(self._expected):
            if vm.process is process and name == f"{VCPU_NAME}{vcpu_id}":
                met = _Met(vm, RunArea(copy_of(process.memory.pid, fd), self._port))
                del self._expected[place]
                vm.areas.append(met.area)
                self._met.append(met)
                return met
        return None
