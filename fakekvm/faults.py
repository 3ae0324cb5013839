"""What goes wrong on a machine, by rule or by chance.

    faults = [Fault(request="KVM_GET_DIRTY_LOG", error=errno.ENOMEM, skip=2, times=1)]
    with Kernel(host_named("sev-v9"), faults=faults) as kernel: ...

A fault is an errno in place of an answer, a command that the firmware is slow with, or something
that the guest does just before a call: so a flip can be placed between two ioctls. Everything else
is as without it. What comes by chance comes the same for the same seed and the same calls.
"""

from __future__ import annotations

import errno
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.errors import oserror
from fakekvm.execution import Execution
from fakekvm.guests import Step
from fakekvm.requestnames import Request, request_names
from fakekvm.runpage import RunPage
from fakekvm.sevdecode import KVM_MEMORY_ENCRYPT_OP
from fakekvm.vcpu import Vcpu
from fakekvm.vm import Vm
from fakekvm.wanted import wanted_bytes

if TYPE_CHECKING:
    from fakekvm.calls import Caller, File
    from fakekvm.host import Host
    from fakekvm.processmemory import ProcessMemory

__all__ = ["DEATH", "BadFault", "Before", "Fault", "Faults"]

#: In place of an errno: the VM dies. It and its vCPUs answer EIO from then on, as a VM that KVM has
#: given up does (Linux v6.12, virt/kvm/kvm_main.c, kvm_vm_ioctl: ``kvm->vm_dead``).
DEATH = -1

Before = Sequence[Step] | Callable[[Vm, np.random.Generator], Iterable[Step]]
"""What a guest does: the steps, or what makes them for the VM as it is by then."""


class BadFault(ValueError):
    """A fault that no call on this host can meet."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fault:
    """What goes wrong, and when.

    Of the calls that match, ``skip`` are let through; of those that follow each ``every``-th goes
    wrong with a chance of ``chance``, until ``times`` have.

    Attributes:
        request: an ioctl's kernel name or number, or an SEV command's (``KVM_SEV_SEND_START``);
            None: every ioctl.
        above_bytes: only calls match that ask for more memory than that (``wanted``).
        error: the errno that the call fails with, not having done anything; ``DEATH``; or 0: the
            call goes on as it would.
        delay_s: so much longer the SEV firmware is busy with the command, for all who wait for it.
        before: what the guest does just before the call, in the VM that it is of; not where that
            has dirty rings, since no vCPU does it. It ends with the first step that exits.
        skip: calls.
        every: calls.
        times: calls; None: no end.
        chance: 0 to 1.
    """

    request: str | int | None = None
    above_bytes: int | None = None
    error: int = 0
    delay_s: float = 0.0
    before: Before = ()
    skip: int = 0
    every: int = 1
    times: int | None = None
    chance: float = 1.0


class Faults:
    """The faults of a machine: a call meets every ``before`` and delay, and the first error.

    Any thread may call.

    Args:
        faults: in the order in which they are tried.
        host: the machine.
        seed: of what comes by chance.

    Attributes:
        struck: how often each fault has come.

    Raises:
        BadFault: one names a request that this host does not have, or has the firmware delay what
            is not for it.
    """

    def __init__(self, faults: Iterable[Fault], host: Host, seed: int = 0) -> None:
        self._faults = [(fault, _checked(fault, host)) for fault in faults]
        self._seen: Counter[Fault] = Counter()
        self.struck: Counter[Fault] = Counter()
        self._random = np.random.default_rng(seed)
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[Fault]:
        return iter(fault for fault, _ in self._faults)

    def lines(self) -> list[str]:
        """How often each has come, to be told to people."""
        return [
            f"fault[{number}]: {fault.request or 'every ioctl'} ({self.struck[fault]} times)"
            for number, fault in enumerate(self)
        ]

    def meet(self, file: File, request: int, arg: int, caller: Caller) -> None:
        """What goes wrong with a call that is about to be carried out.

        Raises:
            OSError: the call is not to be carried out.
        """
        if not self._faults:
            return
        call = _Call(file, request, arg, caller.process.memory)
        with self._lock:
            struck = [fault for fault, wanted in self._faults if self._strikes(fault, wanted, call)]
            rng = self._random.spawn(1)[0] if struck else self._random
        for fault in struck:
            call.suffer(fault, rng)
        error = next((fault.error for fault in struck if fault.error), 0)
        if error:
            raise oserror(errno.EIO if error == DEATH else error)

    def _strikes(self, fault: Fault, wanted: Request | None, call: _Call) -> bool:
        if not call.matches(fault, wanted):
            return False
        self._seen[fault] += 1
        behind = self._seen[fault] - fault.skip
        over = fault.times is not None and self.struck[fault] >= fault.times
        if over or behind <= 0 or behind % fault.every or self._random.random() >= fault.chance:
            return False
        self.struck[fault] += 1
        return True


def _checked(fault: Fault, host: Host) -> Request | None:
    """The request that a fault is of; None: any."""
    request = fault.request
    names = request_names(host)
    if isinstance(request, str) and request not in names:
        msg = f"no ioctl is called {request!r} on this host"
        raise BadFault(msg)
    wanted = Request(request) if isinstance(request, int) else names.get(request or "")
    if fault.delay_s and (wanted is None or wanted.number != KVM_MEMORY_ENCRYPT_OP):
        msg = f"a delay is of the SEV firmware's commands, not of {request or 'every ioctl'}"
        raise BadFault(msg)
    return wanted


class _Call:
    """A call that a fault may be for."""

    def __init__(self, file: File, request: int, arg: int, memory: ProcessMemory) -> None:
        self._file = file
        self._args = request, arg, memory
        self._vm = file.vm if isinstance(file, Vcpu) else file if isinstance(file, Vm) else None

    def matches(self, fault: Fault, wanted: Request | None) -> bool:
        request, arg, memory = self._args
        if wanted is not None and wanted.number != request:
            return False
        if wanted is not None and wanted.command not in (None, _command(memory, arg)):
            return False
        if fault.error == DEATH and self._vm is None:
            return False
        limit = fault.above_bytes
        return limit is None or wanted_bytes(self._file, request, arg, memory) > limit

    def suffer(self, fault: Fault, rng: np.random.Generator) -> None:
        """All that a fault does but its error."""
        if fault.delay_s:
            self._file.services.firmware.stall(fault.delay_s)
        if self._vm is None:
            return
        if fault.before:
            before = fault.before
            steps = before(self._vm, rng) if callable(before) else before
            _do(self._vm, steps)
        if fault.error == DEATH:
            self._vm.is_dead = True


def _command(memory: ProcessMemory, arg: int) -> int | None:
    """``kvm_sev_cmd.id``."""
    try:
        return int.from_bytes(memory.read(arg, 4), "little")
    except OSError:
        return None


def _do(vm: Vm, steps: Iterable[Step]) -> None:
    """Carry steps out at once, as a vCPU of the VM would, up to the first that exits."""
    page = RunPage("fault", 0)
    try:
        execution = Execution(vm, page, None, [0] * 18)
        execution.load(steps)
        execution.run()
    finally:
        os.close(page.fd)
