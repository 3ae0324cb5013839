"""What a guest does, one step after the other, and what can be done with streams of steps."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

__all__ = [
    "Flip",
    "Halt",
    "PortOut",
    "Rest",
    "Script",
    "Step",
    "WritePages",
    "paced",
    "part_of",
    "placed",
]


@dataclass(frozen=True, slots=True, eq=False)
class WritePages:
    """Write the 8-byte ``value`` to the first word of each page, in this order.

    Attributes:
        gfns: repeats are allowed. A range takes no memory, however long.
        value: taken modulo 2^64.
    """

    gfns: NDArray[np.int64] | range
    value: int


@dataclass(frozen=True, slots=True)
class Flip:
    """Announce that ``npages`` pages from ``gfn`` on are now private, or shared.

    This is hypercall 12: KVM_HC_PAGE_ENC_STATUS, handled in the kernel, on a host with an
    encryption state ioctl; else KVM_HC_MAP_GPA_RANGE, which exits if the VM has that enabled and
    fails otherwise. The result is in rax.
    """

    gfn: int
    npages: int
    private: bool


@dataclass(frozen=True, slots=True)
class PortOut:
    """Write the lower ``size`` bytes (1, 2 or 4) of ``value`` to a port: an exit."""

    port: int
    value: int
    size: int = 4


@dataclass(frozen=True, slots=True)
class Halt:
    """Halt: an exit."""


@dataclass(frozen=True, slots=True)
class Rest:
    """Do nothing for a while, inside KVM_RUN: a guest that is idle, with the kernel's local APIC.

    The time is the machine's, and goes on while the vCPU is kept from running.
    """

    seconds: float


Step = WritePages | Flip | PortOut | Halt | Rest
Script = Iterable[Step]


def paced(script: Script, pages_a_second: float) -> Iterator[Step]:
    """A script that rests after each write, so long that it writes no faster than that."""
    for step in script:
        yield step
        if isinstance(step, WritePages) and len(step.gfns):
            yield Rest(len(step.gfns) / pages_a_second)


def placed(script: Script, areas: Sequence[range]) -> Iterator[Step]:
    """A script for the pages 0, 1, 2, ... carried out on the pages of ``areas``, in their order.

    So a stream that knows one range of pages runs on memory with holes. What crosses the end of an
    area becomes several steps.

    Args:
        script: names no page that ``areas`` are too small for.
        areas: ranges of gfns, of step 1.
    """
    places = _Places(areas)
    for step in script:
        if isinstance(step, WritePages):
            yield from places.write(step)
        elif isinstance(step, Flip):
            for run in places.runs(range(step.gfn, step.gfn + step.npages)):
                yield replace(step, gfn=run.start, npages=len(run))
        else:
            yield step


def part_of(areas: Sequence[range], pages: range) -> list[range]:
    """The pages of ``areas`` that have these numbers, counted through all of them."""
    return list(_Places(areas).runs(pages))


class _Places:
    def __init__(self, areas: Sequence[range]) -> None:
        self._areas = [area for area in areas if len(area)]
        self._firsts = list(accumulate((len(area) for area in self._areas), initial=0))
        shifts = [a.start - f for a, f in zip(self._areas, self._firsts, strict=False)]
        self._shifts = np.array(shifts, np.int64)

    def runs(self, pages: range) -> Iterator[range]:
        """``pages``, of step 1, in pieces that each lie in one area."""
        at = pages.start
        while at < pages.stop:
            index = bisect_right(self._firsts, at) - 1
            end = min(pages.stop, self._firsts[index + 1])
            first = self._areas[index].start + at - self._firsts[index]
            yield range(first, first + end - at)
            at = end

    def write(self, step: WritePages) -> Iterator[WritePages]:
        pages = step.gfns
        if isinstance(pages, range) and pages.step == 1:
            for run in self.runs(pages):
                yield WritePages(run, step.value)
        else:
            numbers = np.asarray(pages, np.int64)
            index = np.searchsorted(self._firsts, numbers, side="right") - 1
            yield WritePages(numbers + self._shifts[index], step.value)
