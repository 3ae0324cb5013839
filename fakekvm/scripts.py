"""Where vCPUs get the scripts that they execute: by the number of the VM and the vCPU's id."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fakekvm.guests import Halt, WritePages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakekvm.guests import Script, Step

__all__ = ["Idle", "RandomWrites", "Scripts", "WritableGfns"]

WritableGfns = Callable[[], Mapping[int, range]]
"""The guest frames that a VM's guest can write now: by memslot id, ascending by frame."""


class Scripts(Protocol):
    """Gives a new vCPU what it executes from its first KVM_RUN on."""

    @property
    def about(self) -> str:
        """What guests do by it, to be told to people: "each KVM_RUN ..."."""

    def script(self, vm: int, vcpu: int, writable: WritableGfns) -> Script:
        """The script of one vCPU.

        Args:
            vm: the number of its VM, counted from 0 in the order of KVM_CREATE_VM.
            vcpu: as given to KVM_CREATE_VCPU.
            writable: can be asked when a step is made: a new VM has no memory yet.
        """


class Idle:
    """Guests that do nothing, until ``Kernel.load_guest`` gives them something."""

    about = "each KVM_RUN halts at once"

    def script(self, _vm: int, _vcpu: int, _writable: WritableGfns) -> Script:
        """No steps."""
        return ()


class RandomWrites:
    """Guests that dirty their first memslot a bit in each KVM_RUN; the same ones every time.

    Args:
        npages: written in each KVM_RUN; a page may come twice.
    """

    def __init__(self, npages: int = 64) -> None:
        self._npages = npages
        self.about = (
            f"each KVM_RUN writes 8 bytes to each of {npages} random pages of the first memslot"
            " that can be written, then halts"
        )

    def script(self, vm: int, vcpu: int, writable: WritableGfns) -> Script:
        """Endless; the value written is the number of the KVM_RUN, from 1 on."""
        return self._steps(np.random.default_rng([vm, vcpu]), writable)

    def _steps(self, rng: np.random.Generator, writable: WritableGfns) -> Iterator[Step]:
        value = 0
        while True:
            value += 1
            for gfns in islice(writable().values(), 1):
                picked = rng.integers(gfns.start, gfns.stop, self._npages, np.int64)
                yield WritePages(picked, value)
            yield Halt()
