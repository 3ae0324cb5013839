"""A scenario: a host, and what the guests on it do."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from itertools import count, islice
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.guests import paced
from fakekvm.kernel import Kernel
from fakekvm.scenario.gfns import ALL, Gfns, shares

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from fakekvm.faults import Fault
    from fakekvm.guests import Step
    from fakekvm.host import Host
    from fakekvm.scenario.phases import Does
    from fakekvm.scripts import WritableGfns

__all__ = ["Guest", "Phase", "Scenario"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Something that a vCPU does for a while.

    Attributes:
        does: what.
        gfns: on which pages.
        split: each vCPU of the guest has its own equal part of them; else all have all.
        max_steps: it ends after so many steps, if not before; None: it does not.
        pages_a_second: it writes no faster than that; None: as fast as it can.
    """

    does: Does
    gfns: Gfns = ALL
    split: bool = False
    max_steps: int | None = None
    pages_a_second: float | None = None

    def steps(self, memory: list[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps, with this share of the pages."""
        steps = islice(self.does.steps(memory, rng), self.max_steps)
        return paced(steps, self.pages_a_second) if self.pages_a_second else steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """vCPUs that do the same, each with random numbers of its own.

    Attributes:
        phases: one after the other.
        vms: numbers of the VMs, in the order of their creation; None: all.
        vcpus: their ids; None: all.
        repeats: after the last phase comes the first again; else the vCPU halts.
    """

    phases: tuple[Phase, ...]
    vms: tuple[int, ...] | None = None
    vcpus: tuple[int, ...] | None = None
    repeats: bool = False

    def has(self, vm: int, vcpu: int) -> bool:
        """Whether this vCPU is one of its."""
        return (self.vms is None or vm in self.vms) and (self.vcpus is None or vcpu in self.vcpus)

    def steps(
        self, vcpu: int, memory: Mapping[int, range], seed: tuple[int, ...]
    ) -> Iterator[Step]:
        """What a vCPU of it does, in a guest with this memory."""
        for passed in count():
            idle = True
            for number, phase in enumerate(self.phases):
                rng = np.random.default_rng([*seed, passed, number])
                for step in phase.steps(self._share(phase, vcpu, memory), rng):
                    idle = False
                    yield step
            if idle or not self.repeats:
                return

    def _share(self, phase: Phase, vcpu: int, memory: Mapping[int, range]) -> list[range]:
        pages = phase.gfns.of(memory)
        if not phase.split or self.vcpus is None:
            return pages
        place, of = self.vcpus.index(vcpu), len(self.vcpus)
        return shares(pages, Fraction(place, of), Fraction(place + 1, of))


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """What a scenario file says. It gives new vCPUs their scripts (``fakekvm.scripts.Scripts``).

    Attributes:
        about: what it is for, in a line.
        host: the machine.
        guests: a vCPU belongs to the first that has it; one that is in none halts.
        seed: of all random numbers.
        faults: what goes wrong on the machine.
    """

    host: Host
    guests: tuple[Guest, ...]
    about: str = ""
    seed: int = 0
    faults: tuple[Fault, ...] = ()

    def script(self, vm: int, vcpu: int, writable: WritableGfns) -> Iterator[Step]:
        """What a vCPU executes: the same steps for the same seed, numbers and memory.

        Args:
            vm: the number of its VM, from 0 on.
            vcpu: its id.
            writable: the memory of its guest; asked when the first step is made.
        """
        for number, guest in enumerate(self.guests):
            if guest.has(vm, vcpu):
                yield from guest.steps(vcpu, writable(), (self.seed, number, vm, vcpu))
                return

    def kernel(self) -> Kernel:
        """A fake kernel on this host, whose vCPUs and faults do what the scenario says."""
        return Kernel(self.host, self, self.faults, self.seed)
