"""A kernel in which things go wrong, by rule or by chance.

    faults = [Fault("KVM_GET_DIRTY_LOG", error=errno.ENOMEM, skip=2, times=1)]
    with FaultyKernel(host_named("sev-v9"), faults) as kernel: ...

A fault is an errno in place of an answer, or something that the guest does just before a call: so a
flip can be placed between two ioctls. Everything else is as in ``Kernel``. What comes by chance
comes the same for the same seed and the same calls.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from fakekvm import decode
from fakekvm.errors import oserror
from fakekvm.execution import Execution
from fakekvm.kernel import Kernel
from fakekvm.revisions import REVISIONS
from fakekvm.runpage import RunPage
from fakekvm.vcpu import Vcpu
from fakekvm.vm import Vm

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from fakekvm.calls import Caller, File
    from fakekvm.guests import Step
    from fakekvm.host import Host

__all__ = ["DEATH", "Fault", "FaultyKernel", "request_number"]

#: In place of an errno: the VM dies. It and its vCPUs answer EIO from then on, as a VM that KVM has
#: given up does (Linux v6.12, virt/kvm/kvm_main.c, kvm_vm_ioctl: ``kvm->vm_dead``).
DEATH = -1

#: Names that ``decode`` does not have, because their numbers depend on the host.
_ENC_NAMES = {
    "KVM_GET_PAGE_ENC_BITMAP": "get",
    "KVM_SET_PAGE_ENC_BITMAP": "set",
    "KVM_GET_SHARED_PAGES_LIST": "get",
    "KVM_SET_SHARED_PAGES_LIST": "set",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fault:
    """What goes wrong, and when.

    Of the calls that match, ``skip`` are let through; then each goes wrong with a chance of
    ``chance``, until ``times`` have.

    Attributes:
        request: an ioctl's kernel name or number; None: every ioctl.
        error: the errno that the call fails with, not having done anything; ``DEATH``; or 0: the
            call goes on as it would.
        before: what the guest does just before the call, in the VM that it is of; not where that
            has dirty rings, since no vCPU does it.
        skip: calls.
        times: calls; None: no end.
        chance: 0 to 1.
    """

    request: str | int | None = None
    error: int = 0
    before: Sequence[Step] = ()
    skip: int = 0
    times: int | None = None
    chance: float = 1.0


class FaultyKernel(Kernel):
    """A ``Kernel`` with faults: of those that strike a call, every ``before`` and the first error.

    Args:
        host: as of ``Kernel``.
        faults: in the order in which they are tried.
        seed: of what comes by chance.

    Attributes:
        struck: how often each fault has come.

    Raises:
        ValueError: a fault names an ioctl that this host does not have.
    """

    def __init__(
        self, host: Host | None = None, faults: Iterable[Fault] = (), seed: int = 0
    ) -> None:
        super().__init__(host)
        self._faults = [(it, request_number(it.request, self.host)) for it in faults]
        self._seen: Counter[Fault] = Counter()
        self.struck: Counter[Fault] = Counter()
        self._random = np.random.default_rng(seed)
        self._dead: set[Vm] = set()

    def carry_out(self, file: File, request: int, arg: int, caller: Caller) -> int | File:
        """As ``Kernel``, if nothing goes wrong."""
        vm, error = vm_of(file), 0
        for fault, number in self._faults:
            if number in (None, request) and self._strikes(fault):
                if vm is not None and fault.before:
                    _Hand(vm).do(fault.before)
                error = error or fault.error
        if error == DEATH and vm is not None:
            self._dead.add(vm)
        if vm in self._dead:
            raise oserror(errno.EIO)
        if error > 0:
            raise oserror(error)
        return super().carry_out(file, request, arg, caller)

    def _strikes(self, fault: Fault) -> bool:
        self._seen[fault] += 1
        over = fault.times is not None and self.struck[fault] >= fault.times
        if self._seen[fault] <= fault.skip or over or self._random.random() >= fault.chance:
            return False
        self.struck[fault] += 1
        return True


def request_number(request: str | int | None, host: Host) -> int | None:
    """The number of an ioctl given by name, on this host.

    Raises:
        ValueError: it has none of that name.
    """
    if request is None or isinstance(request, int):
        return request
    number = getattr(decode, request, None) if request.startswith("KVM_") else None
    if request in _ENC_NAMES and host.enc_revision is not None:
        number = getattr(REVISIONS[host.enc_revision], _ENC_NAMES[request])
    if not number:
        msg = f"no ioctl is called {request!r} on this host"
        raise ValueError(msg)
    return int(number)


def vm_of(file: File) -> Vm | None:
    """The VM that a file is, or is of."""
    if isinstance(file, Vcpu):
        return file.vm
    return file if isinstance(file, Vm) else None


class _Hand:
    """Does a guest's steps at once, as a vCPU of the VM would."""

    def __init__(self, vm: Vm) -> None:
        self._page = RunPage("fault", 0)
        self._execution = Execution(vm, self._page, None, [0] * 18)

    def do(self, steps: Iterable[Step]) -> None:
        """Up to the first that exits."""
        self._execution.load(steps)
        self._execution.run()
        os.close(self._page.fd)
