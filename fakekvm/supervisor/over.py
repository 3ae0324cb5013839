"""The fake laid over a real KVM: it answers what that lacks, and notes what it needs for that.

KVM serves a VM only to the process that made it, so what the kernel is to carry out the program
carries out itself, once it was looked at here. What comes of it is not seen.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from fakekvm import decode, sevdecode
from fakekvm.calls import Caller
from fakekvm.errors import oserror
from fakekvm.machine import KVM_PATH, SEV_PATH, Machine
from fakekvm.revisions import REVISIONS
from fakekvm.supervisor.announcers import Announcers
from fakekvm.supervisor.descriptors import VM_NAME, copy_of, is_same
from fakekvm.supervisor.launch import Unavailable
from fakekvm.supervisor.shadow import ShadowVm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm.calls import File
    from fakekvm.host import Host
    from fakekvm.supervisor.notify import Notification
    from fakekvm.supervisor.tasks import Process, Task

__all__ = ["Over", "is_something"]

_CAP_SYNC_REGS, _SYNC_X86_REGS = 74, 1 << 0
_CAPABILITIES = range(1, 256)

_OF_SEV = (
    sevdecode.KVM_MEMORY_ENCRYPT_OP,
    sevdecode.KVM_MEMORY_ENCRYPT_REG_REGION,
    sevdecode.KVM_MEMORY_ENCRYPT_UNREG_REGION,
)
_NOTED = (
    decode.KVM_CREATE_VCPU,
    decode.KVM_SET_USER_MEMORY_REGION,
    decode.KVM_SET_USER_MEMORY_REGION2,
)


def is_something(host: Host) -> bool:
    """Whether a host has anything that could be laid over another."""
    return host.sev or host.enc_revision is not None


class Over:
    """What of a host is laid over this machine's KVM, and over which VMs.

    Args:
        host: its encryption bitmap, SEV and firmware are laid over; the rest is the machine's.
        port: a guest's write to it stands for KVM_HC_MAP_GPA_RANGE; None: no KVM_RUN is looked at.
        say: prints a message for people.

    Attributes:
        machine: answers for what is laid over.
        requests: the ioctls of KVM that it has to be asked about.
        devices: those that it answers for.

    Raises:
        Unavailable: /dev/kvm does not open, or the kernel lacks what this needs of it.
    """

    devices = frozenset({SEV_PATH})

    def __init__(self, host: Host, port: int | None, say: Callable[[str], None]) -> None:
        self.machine = Machine(_on_this_machine(host, port is not None))
        self._port = port
        self._say = say
        self._announcers = None if port is None else Announcers(port)
        self._answered = frozenset((*_enc_requests(host), *(_OF_SEV if host.sev else ())))
        runs = () if port is None else (decode.KVM_RUN,)
        self.requests = frozenset((decode.KVM_CREATE_VM, *_NOTED, *runs, *self._answered))
        self._makers: set[Process] = set()
        self._vms: list[ShadowVm] = []

    @property
    def about(self) -> str:
        """What is laid over, to be told to people."""
        host = self.machine.host
        parts = ["SEV"] if host.sev else []
        if host.enc_revision:
            seen = "not seen (--flip-port)" if self._port is None else f"by port {self._port:#x}"
            parts.append(f"{host.enc_revision}'s bitmap, flips {seen}")
        return f"/dev/kvm is real; over it: {', '.join(parts)}"

    def file_of(self, call: Notification, task: Task) -> File | None:
        """The VM that answers a call here; None: the kernel carries it out.

        Raises:
            OSError: the process may not be looked into, or has no such descriptor.
        """
        fd, request = call.arg0 & decode.U32, call.arg1 & decode.U32
        if request == decode.KVM_CREATE_VM:
            self._expect_vm(task.process, call.arg2)
            return None
        if request == decode.KVM_RUN and self._announcers is not None:
            self._announcers.before_run(task, fd)
            return None
        vm = self._vm_of(task, fd)
        if vm is None or vm.process is not task.process:
            return None  # EIO, or whatever the kernel says to it
        if request in self._answered:
            return vm
        self._note(vm, request, call.arg2)
        return None

    def sweep(self) -> list[ShadowVm]:
        """Let go of VMs that nobody uses any more; returns them."""
        dropped = [vm for vm in self._vms if not vm.is_held()]
        for vm in dropped:
            self._vms.remove(vm)
            if self._announcers is not None:
                self._announcers.forget(vm)
            vm.closed()
        self._makers = {it for it in self._makers if it.is_there()}
        return dropped

    def _expect_vm(self, process: Process, vm_type: int) -> None:
        self._makers.add(process)
        if vm_type:
            self._say(
                f"KVM_CREATE_VM of type {vm_type} is this kernel's to make or refuse; SEV is laid"
                " over VMs of type 0 (KVM_SEV_INIT, as QEMU up to 9.0 uses it)"
            )

    def _vm_of(self, task: Task, fd: int) -> ShadowVm | None:
        for vm in self._vms:
            if is_same(vm.fd, task.tid, fd):
                return vm
        is_vm = os.readlink(f"fd/{fd}", dir_fd=task.folder) == VM_NAME
        if not is_vm or task.process not in self._makers:
            return None
        vm = ShadowVm(self.machine, task.process, copy_of(task.process.memory.pid, fd))
        self._vms.append(vm)
        return vm

    def _note(self, vm: ShadowVm, request: int, arg: int) -> None:
        vcpus = len(vm.vcpus)
        vm.note(request, arg, Caller(vm.process))
        if self._announcers is not None and len(vm.vcpus) > vcpus:
            self._announcers.expect(vm, arg)


def _enc_requests(host: Host) -> tuple[int, ...]:
    if host.enc_revision is None:
        return ()
    revision = REVISIONS[host.enc_revision]
    return tuple(filter(None, (revision.get, revision.set, revision.reset)))


def _on_this_machine(host: Host, announces: bool) -> Host:
    """The host with this machine's capabilities, by which memslots are checked.

    Its memory lies in clear: this machine's CPU has no keys, and guests read it.
    """
    try:
        kvm = os.open(KVM_PATH, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        raise Unavailable(f"{KVM_PATH}: {error.strerror}: --over needs a real one") from error
    try:
        capabilities = {it: _capability(kvm, it) for it in _CAPABILITIES}
        _check_kcmp(kvm)
    finally:
        os.close(kvm)
    if announces and not capabilities[_CAP_SYNC_REGS] & _SYNC_X86_REGS:
        raise Unavailable("--flip-port needs KVM_CAP_SYNC_REGS, which this machine's KVM lacks")
    return replace(host, capabilities=capabilities, clear_memory=True, open_errno=0)


def _capability(kvm: int, number: int) -> int:
    return max(fcntl.ioctl(kvm, decode.KVM_CHECK_EXTENSION, number), 0)


def _check_kcmp(fd: int) -> None:
    try:
        if not is_same(fd, os.getpid(), fd):
            raise oserror(errno.ENOSYS)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "?")
        raise Unavailable(
            f"kcmp() is not to be had ({name}): --over needs a kernel with CONFIG_KCMP, and no"
            " sandbox that forbids it"
        ) from error
