"""The same program as a script for a fake vCPU."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from fakekvm import guests
from kvmenc.guest.program import Flip, Program, Step, Tick, WriteList, WriteRun
from kvmenc.guest.x86 import TICK_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["script_of"]


def script_of(program: Program) -> Iterator[guests.Step]:
    """``program`` for ever, as fakekvm's steps; the value written is the number of the pass."""
    for pass_number in itertools.count():
        for step in program:
            yield _step(step, pass_number)


def _step(step: Step, value: int) -> guests.Step:
    match step:
        case WriteRun(gfn, npages):
            return guests.WritePages(np.arange(gfn, gfn + npages), value)
        case WriteList(gfns):
            return guests.WritePages(np.array(gfns), value)
        case Flip(gfn, npages, private):
            return guests.Flip(gfn, npages, private)
        case Tick():
            return guests.PortOut(TICK_PORT, value)
