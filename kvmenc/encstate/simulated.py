"""Private/shared made up: constants, seeded patterns and scripts, for tests and what-ifs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.encstate.gfnstate import GfnState
from kvmenc.memory.words import Words, clear_ranges, ones, zeros

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvmenc.memory.slots import MemSlot

__all__ = [
    "ALL_PRIVATE",
    "ALL_SHARED",
    "ConstantSource",
    "Flip",
    "PatternSource",
    "ScriptedSource",
]


#: What a ConstantSource is called.
ALL_PRIVATE, ALL_SHARED = "all private", "all shared"


class ConstantSource:
    """A ``PrivateSource`` in which every page is private, or every page is shared."""

    def __init__(self, *, private: bool) -> None:
        self._make = ones if private else zeros
        self.name = ALL_PRIVATE if private else ALL_SHARED

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's words, all alike."""
        for slot in slots:
            yield slot, self._make(slot.npages)


class PatternSource:
    """A ``PrivateSource`` in which runs of pages are shared at random; each reading is alike.

    Args:
        shared_share: expected share of shared pages, 0 to 1.
        run_pages: pages of a run that share one state.
        seed: the same seed and slot give the same bits.

    Raises:
        ValueError: a share outside 0..1, or a run of no pages.
    """

    name = "simulated pattern"

    def __init__(self, *, shared_share: float, run_pages: int, seed: int) -> None:
        if not 0 <= shared_share <= 1 or run_pages < 1:
            msg = f"no such pattern: shared share {shared_share}, runs of {run_pages} pages"
            raise ValueError(msg)
        self._shared_share = shared_share
        self._run_pages = run_pages
        self._seed = seed

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's words."""
        for slot in slots:
            rng = np.random.default_rng((self._seed, slot.key))
            nruns = -(-slot.npages // self._run_pages)
            starts = np.flatnonzero(rng.random(nruns) < self._shared_share) * self._run_pages
            words = ones(slot.npages)
            clear_ranges(words, starts, np.minimum(starts + self._run_pages, slot.npages))
            yield slot, words


@dataclass(frozen=True, slots=True)
class Flip:
    """``npages`` gfns from ``gfn`` on become private, or shared."""

    gfn: int
    npages: int
    private: bool


class ScriptedSource:
    """A ``PrivateSource`` that starts all private and flips by a script.

    Args:
        slots: every slot that will be read.
        script: one entry a reading: the flips that happen before it. After its end nothing flips.
    """

    name = "simulated script"

    def __init__(self, slots: Iterable[MemSlot], script: Iterable[Iterable[Flip]]) -> None:
        self._state = GfnState(slots)
        self._script = iter(script)

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Play the script's next entry, then yield each slot's words."""
        for flip in next(self._script, ()):
            self._state.set_range(flip.gfn, flip.npages, private=flip.private)
        for slot in slots:
            yield slot, self._state.words_of(slot)
