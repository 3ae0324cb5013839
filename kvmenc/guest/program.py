"""What a scratch guest does, said once for every backend.

A program is a list of steps, repeated for ever; the value written is the number of the pass, so a
page's content tells when it was last written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.encstate.simulated import Flip

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Flip", "Program", "Step", "Tick", "WriteList", "WriteRun", "hot_and_cold"]


@dataclass(frozen=True, slots=True)
class WriteRun:
    """Write the first word of ``npages`` pages in a row, from ``gfn`` on."""

    gfn: int
    npages: int


@dataclass(frozen=True, slots=True)
class WriteList:
    """Write the first word of these pages (gfns), in this order."""

    gfns: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tick:
    """Stop for the host to look: it may hold the guest to a pace, or end it."""


Step = WriteRun | WriteList | Flip | Tick
Program = tuple[Step, ...]


def hot_and_cold(
    hot: NDArray[np.int64], cold: NDArray[np.int64], rng: np.random.Generator, per_tick: int = 512
) -> Program:
    """A guest with a hot set: each tick writes ``per_tick`` pages, 7 in 8 of them hot.

    Args:
        hot: gfns written over and over, in random order.
        cold: gfns written once each in one pass of the program.
        rng: where the randomness comes from.
        per_tick: pages written between two ticks, a multiple of 8.

    Returns:
        As many ticks as it takes to sweep ``cold`` once.
    """
    ncold = per_tick // 8
    steps: list[Step] = []
    for start in range(0, cold.size, ncold):
        swept = cold[start : start + ncold]
        picked = rng.choice(hot, size=per_tick - swept.size)
        gfns = rng.permutation(np.concatenate([picked, swept]))
        steps += [WriteList(tuple(gfns.tolist())), Tick()]
    return tuple(steps)
