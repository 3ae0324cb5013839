"""A process that may be asked to call the kernel for us: all that can be checked beforehand."""

from __future__ import annotations

import errno
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kvmenc import procfs
from kvmenc.errors import HostError, errno_name

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Target"]

_ELFCLASS64 = 2
_VM_LINK = "anon_inode:kvm-vm"
_SECCOMP_MODE_FILTER = "2"


@dataclass(frozen=True, slots=True)
class Target:
    """A live 64-bit process with one KVM VM, which we may trace and nobody else does.

    Attributes:
        pid: the process.
        vm_fd: its file descriptor of the VM.
        kvm_fd: its file descriptor of /dev/kvm; None if it has closed that.
        started_ticks: when it started; tells it from a later process of the same pid.
        avoid: threads never touched; the main thread never is either.
    """

    pid: int
    vm_fd: int
    kvm_fd: int | None
    started_ticks: int
    avoid: frozenset[int]

    @classmethod
    def of(cls, pid: int, avoid: Collection[int] = ()) -> Self:
        """Check the process; it is only looked at.

        Args:
            pid: the process.
            avoid: the ids of threads never to be touched: those of the vCPUs.

        Raises:
            HostError: it cannot be used; says why, and what to do.
        """
        if platform.machine() != "x86_64":
            raise HostError("another process's VM can be looked into on x86-64 only")
        started_ticks = procfs.start_ticks(pid)
        _check_kind(pid)
        _check_free(pid)
        _check_permission(pid)
        _check_program(pid)
        vm_fd, kvm_fd = _vm_of(pid)
        return cls(pid, vm_fd, kvm_fd, started_ticks, frozenset(avoid))

    def check_alive(self) -> None:
        """Make sure that it is still there.

        Raises:
            HostError: it has ended, and its pid may be another process's by now.
        """
        try:
            alive = procfs.start_ticks(self.pid) == self.started_ticks
            alive = alive and procfs.state(self.pid) not in {"Z", "X"}
        except HostError:
            alive = False
        if not alive:
            raise HostError(f"process {self.pid} has ended")


def _check_kind(pid: int) -> None:
    if pid == os.getpid():
        raise HostError(f"process {pid} is kvmenc itself: give the pid of QEMU")
    tgid = procfs.tgid_of(pid)
    if tgid != pid:
        raise HostError(f"{pid} is a thread of process {tgid}: give the pid of QEMU, {tgid}")
    if procfs.state(pid) in {"Z", "X"}:
        raise HostError(f"process {pid} has ended; its parent has not collected it yet")


def _check_free(pid: int) -> None:
    tracer = procfs.status_field(pid, "TracerPid") or "0"
    if tracer != "0":
        raise HostError(f"process {pid} is traced by process {tracer}: end that one first")
    if procfs.state(pid) in {"T", "t"}:
        raise HostError(f"process {pid} is stopped: continue it first (kill -CONT {pid})")


def _check_permission(pid: int) -> None:
    path = f"/proc/{pid}/mem"  # opening it asks what PTRACE_SEIZE asks: PTRACE_MODE_ATTACH
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
    except PermissionError as error:
        why = f"{path}: {errno_name(error.errno or errno.EACCES)}"
        raise procfs.no_permission(pid, why) from error
    except OSError as error:
        raise HostError(f"there is no process {pid}") from error


def _check_program(pid: int) -> None:
    """64-bit, no shadow stack, and no unknown seccomp filter.

    QEMU's filters name what is denied, and we call nothing of that (v7.2, softmmu/qemu-seccomp.c).
    Those of other VMMs name what is allowed, and kill the process for all else.
    """
    exe = Path(f"/proc/{pid}/exe")
    try:
        name = exe.readlink().name
        with exe.open("rb") as file:
            head = file.read(5)
    except OSError:
        return  # a kernel thread, which has no VM either: said next
    if head[4:] != bytes((_ELFCLASS64,)):
        raise HostError(f"process {pid} ({name}) is a 32-bit program: only 64-bit ones can be used")
    if "shstk" in (procfs.status_field(pid, "x86_Thread_features") or ""):
        raise HostError(
            f"process {pid} ({name}) has a shadow stack: its threads cannot be borrowed"
        )
    filtered = procfs.status_field(pid, "Seccomp") == _SECCOMP_MODE_FILTER
    if filtered and not name.startswith("qemu"):
        raise HostError(
            f"process {pid} ({name}) has a seccomp filter and is not QEMU: the filter might kill it"
        )


def _vm_of(pid: int) -> tuple[int, int | None]:
    links = procfs.fd_links(pid)
    vms = [fd for fd, link in links.items() if link == _VM_LINK]
    if not vms:
        raise HostError(f"process {pid} has no KVM VM: give the pid of a QEMU that runs with KVM")
    if len(vms) > 1:
        fds = ", ".join(map(str, sorted(vms)))
        raise HostError(
            f"process {pid} has {len(vms)} KVM VMs (file descriptors {fds}): only a process with"
            " one can be looked into"
        )
    return vms[0], next((fd for fd, link in links.items() if link == "/dev/kvm"), None)
