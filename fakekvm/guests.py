"""What a scripted guest does: steps, and endless streams of them.

A script is any iterable of steps; each KVM_RUN of the vCPU goes on where the last one stopped, and
a vCPU whose script is at its end halts. Streams of steps are deterministic by their generator.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "Flip",
    "Halt",
    "PortOut",
    "Script",
    "Step",
    "WritePages",
    "flip_then_write",
    "hot_and_cold",
    "random_writer",
    "sequential_writer",
    "write_then_flip",
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


Step = WritePages | Flip | PortOut | Halt
Script = Iterable[Step]


def sequential_writer(gfns: range, chunk_pages: int = 512) -> Iterator[Step]:
    """Writes all of ``gfns`` in order, over and over; the value is the number of the pass."""
    for passed in itertools.count(1):
        for first in range(0, len(gfns), chunk_pages):
            yield WritePages(gfns[first : first + chunk_pages], passed)


def random_writer(gfns: range, rng: np.random.Generator, chunk_pages: int = 512) -> Iterator[Step]:
    """Writes pages picked from ``gfns``, each as likely as any other."""
    for value in itertools.count(1):
        yield WritePages(_pick(gfns, chunk_pages, rng), value)


def hot_and_cold(
    hot: range,
    cold: range,
    rng: np.random.Generator,
    hot_share: float = 0.875,
    chunk_pages: int = 512,
) -> Iterator[Step]:
    """Writes hot pages at random, and sweeps through the cold ones, over and over.

    Args:
        hot: gfns written over and over.
        cold: gfns written in turn.
        rng: picks the hot pages, and the order within a chunk.
        hot_share: share of the writes that go to hot pages, 0 to 1.
        chunk_pages: writes per step.
    """
    nhot = round(chunk_pages * hot_share)
    sweep = itertools.count(step=chunk_pages - nhot)
    for value, swept in zip(itertools.count(1), sweep):
        at = np.arange(swept, swept + chunk_pages - nhot, dtype=np.int64) % max(len(cold), 1)
        picked = np.concatenate([_pick(hot, nhot, rng), cold.start + cold.step * at])
        yield WritePages(rng.permutation(picked), value)


def flip_then_write(gfns: range, rng: np.random.Generator, run_pages: int = 16) -> Iterator[Step]:
    """Announces a change of a run of pages, then writes them: how set_memory_decrypted() is used.

    Source: Linux v6.12, arch/x86/mm/pat/set_memory.c, __set_memory_enc_pgtable.
    """
    for flip, write in _conversions(gfns, rng, run_pages):
        yield flip
        yield write


def write_then_flip(gfns: range, rng: np.random.Generator, run_pages: int = 16) -> Iterator[Step]:
    """Converts the content of a run of pages in place, and announces the change only then.

    Source: Linux v6.12, arch/x86/mm/mem_encrypt_amd.c, early_set_memory_enc_dec.
    """
    for flip, write in _conversions(gfns, rng, run_pages):
        yield write
        yield flip


def _conversions(
    gfns: range, rng: np.random.Generator, run_pages: int
) -> Iterator[tuple[Flip, WritePages]]:
    """Runs of ``gfns`` picked at random, which change to shared, back to private, ..."""
    runs = [gfns[first : first + run_pages] for first in range(0, len(gfns), run_pages)]
    private = np.ones(len(runs), np.bool_)
    for value in itertools.count(1):
        at = int(rng.integers(len(runs)))
        private[at] = not private[at]
        run = runs[at]
        yield Flip(run.start, len(run), bool(private[at])), WritePages(run, value)


def _pick(gfns: range, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return gfns.start + gfns.step * rng.integers(len(gfns), size=count, dtype=np.int64)
