"""Sources that yield bitmaps prepared beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.memory.words import words_for
from tests.memory import oracle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kvmenc.memory.slots import MemSlot
    from kvmenc.memory.words import Words


class Prepared:
    """Yields each slot's bits, given as ints by the slot's key; 0 for a slot not given."""

    name = "prepared"

    def __init__(self, bits: Mapping[int, int] | None = None) -> None:
        self.bits = dict(bits or {})

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        for slot in slots:
            words = oracle.to_words(self.bits.get(slot.key, 0), words_for(slot.npages))
            yield slot, words
            # The protocol's promise to the source: the words are the source's again.
            words[:] = np.uint64(0xDEAD_BEEF_DEAD_BEEF)


class Log(Prepared):
    """A dirty log with manual protect: a slot's bits are cleared once the reader goes on."""

    name = "log"

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        for slot, words in super().read(slots):
            yield slot, words
            self.bits[slot.key] = 0


class Breaks:
    """Yields what another source does for some slots, then fails."""

    name = "breaks"

    def __init__(self, source: Prepared, after_slots: int) -> None:
        self._source = source
        self._after_slots = after_slots

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        yield from self._source.read(slots[: self._after_slots])
        raise OSError(5, "broken")


class Yields:
    """Yields just what it is given, whatever is asked for."""

    name = "faulty"

    def __init__(self, *items: tuple[MemSlot, Words]) -> None:
        self._items = items

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        yield from self._items
