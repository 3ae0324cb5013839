"""What a guest can do for a while: the kinds of phases, and how each is read.

Each kind is a dataclass of its keys; what a key may be is in ``_KEYS``, alike for all kinds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from fakekvm import guests
from fakekvm.guests import Flip, Halt, PortOut, Rest, WritePages, placed
from fakekvm.scenario.kinds import FLAG, SECONDS, Kind, choice, number, whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np

    from fakekvm.guests import Step
    from fakekvm.scenario.tables import Table

__all__ = ["PHASES", "Does", "read_does"]

_CHUNK = 512


class Does(Protocol):
    """What one phase does.

    Attributes:
        endless: it goes on until something ends it.
    """

    endless: ClassVar[bool]

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps, on these pages."""


def _on(memory: Sequence[range], writer: Callable[[range], Iterator[Step]]) -> Iterator[Step]:
    """A stream for one range, on all of ``memory``; nothing where there is none."""
    npages = sum(len(area) for area in memory)
    return placed(writer(range(npages)), memory) if npages else iter(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Sequential:
    """Writes page after page, over and over."""

    endless: ClassVar[bool] = True
    chunk_pages: int = _CHUNK

    def steps(self, memory: Sequence[range], _rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return _on(memory, lambda pages: guests.sequential_writer(pages, self.chunk_pages))


@dataclass(frozen=True, slots=True, kw_only=True)
class Random:
    """Writes pages picked alike."""

    endless: ClassVar[bool] = True
    chunk_pages: int = _CHUNK

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return _on(memory, lambda pages: guests.random_writer(pages, rng, self.chunk_pages))


@dataclass(frozen=True, slots=True, kw_only=True)
class Zipf:
    """Writes pages picked by Zipf's law."""

    endless: ClassVar[bool] = True
    exponent: float = 1.0
    chunk_pages: int = _CHUNK

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return _on(
            memory, lambda pages: guests.zipf_writer(pages, rng, self.exponent, self.chunk_pages)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HotAndCold:
    """Writes the first pages often, sweeps through the others."""

    endless: ClassVar[bool] = True
    hot: float = 0.1
    hot_share: float = 0.875
    chunk_pages: int = _CHUNK

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""

        def writer(pages: range) -> Iterator[Step]:
            nhot = min(max(round(len(pages) * self.hot), 1), len(pages))
            share = self.hot_share if nhot < len(pages) else 1.0
            return guests.hot_and_cold(pages[:nhot], pages[nhot:], rng, share, self.chunk_pages)

        return _on(memory, writer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bursts:
    """Writes a lot, rests, writes a lot."""

    endless: ClassVar[bool] = True
    burst_pages: int = 8192
    rest: float = 0.05
    chunk_pages: int = _CHUNK

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        args = (self.burst_pages, self.rest, self.chunk_pages)
        return _on(memory, lambda pages: guests.burst_writer(pages, rng, *args))


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkingSets:
    """Writes within a working set, then within another."""

    endless: ClassVar[bool] = True
    set_pages: int = 4096
    set_writes: int = 1 << 16
    chunk_pages: int = _CHUNK

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        args = (self.set_pages, self.set_writes, self.chunk_pages)
        return _on(memory, lambda pages: guests.phase_writer(pages, rng, *args))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlipThenWrite:
    """Announces, then writes."""

    endless: ClassVar[bool] = True
    run_pages: int = 16

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return _on(memory, lambda pages: guests.flip_then_write(pages, rng, self.run_pages))


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteThenFlip:
    """Converts in place, then announces."""

    endless: ClassVar[bool] = True
    run_pages: int = 16

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return _on(memory, lambda pages: guests.write_then_flip(pages, rng, self.run_pages))


@dataclass(frozen=True, slots=True, kw_only=True)
class SwiotlbChurn:
    """Small shared buffers come and go."""

    endless: ClassVar[bool] = True
    most_pages: int = 8

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return _on(memory, lambda pages: guests.swiotlb_churn(pages, rng, self.most_pages))


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """Boots Linux, by OVMF or without firmware (0 conversions)."""

    endless: ClassVar[bool] = False
    cpus: int = 4
    firmware_conversions: int = guests.OVMF_CONVERSIONS

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return guests.boot_flips(memory, rng, self.cpus, self.firmware_conversions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reboot:
    """Boots Linux anew, by kexec (0 conversions) or by OVMF."""

    endless: ClassVar[bool] = False
    cpus: int = 4
    firmware_conversions: int = 0

    def steps(self, memory: Sequence[range], rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return guests.reboot_flips(memory, rng, self.cpus, self.firmware_conversions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """Writes each page once."""

    endless: ClassVar[bool] = False
    value: int = 1

    def steps(self, memory: Sequence[range], _rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return (WritePages(area, self.value) for area in memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Announce:
    """Announces each range once."""

    endless: ClassVar[bool] = False
    private: bool

    def steps(self, memory: Sequence[range], _rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return (Flip(area.start, len(area), self.private) for area in memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class Out:
    """Writes to a port: an exit."""

    endless: ClassVar[bool] = False
    port: int
    value: int = 0

    def steps(self, _memory: Sequence[range], _rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return iter([PortOut(self.port, self.value)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Resting:
    """Is idle for a while."""

    endless: ClassVar[bool] = False
    rest: float

    def steps(self, _memory: Sequence[range], _rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return iter([Rest(self.rest)])


@dataclass(frozen=True, slots=True, kw_only=True)
class Halting:
    """Halts: an exit."""

    endless: ClassVar[bool] = False

    def steps(self, _memory: Sequence[range], _rng: np.random.Generator) -> Iterator[Step]:
        """The steps."""
        return iter([Halt()])


PHASES: dict[str, type[Does]] = {
    "sequential": Sequential,
    "random": Random,
    "zipf": Zipf,
    "hot-and-cold": HotAndCold,
    "bursts": Bursts,
    "working-sets": WorkingSets,
    "flip-then-write": FlipThenWrite,
    "write-then-flip": WriteThenFlip,
    "swiotlb-churn": SwiotlbChurn,
    "boot": Boot,
    "reboot": Reboot,
    "write": Write,
    "announce": Announce,
    "port-out": Out,
    "rest": Resting,
    "halt": Halting,
}
"""By the name that ``does`` gives."""

_PAGES = whole(1, 1 << 30)
_KEYS: dict[str, Kind[Any]] = {
    "chunk_pages": whole(1, 1 << 20),
    "exponent": number(0, 16),
    "hot": number(0, 1),
    "hot_share": number(0, 1),
    "burst_pages": _PAGES,
    "rest": SECONDS,
    "set_pages": _PAGES,
    "set_writes": _PAGES,
    "run_pages": _PAGES,
    "most_pages": _PAGES,
    "cpus": whole(1, 8192),
    "firmware_conversions": whole(0, 1 << 20),
    "value": whole(0, (1 << 63) - 1),
    "private": FLAG,
    "port": whole(0, 0xFFFF),
}


def read_does(table: Table, names: Sequence[str] = tuple(PHASES)) -> Does:
    """What a phase does, one of ``names``, and the keys that are only for that.

    Raises:
        ScenarioError: something is wrong with them.
    """
    kind: Any = PHASES[table.take("does", choice(names))]
    values = {}
    for own in dataclasses.fields(kind):
        if table.has(own.name) or own.default is dataclasses.MISSING:
            values[own.name] = table.take(own.name, _KEYS[own.name])
        else:
            table.take(own.name, _KEYS[own.name], own.default)
    does: Does = kind(**values)
    return does
