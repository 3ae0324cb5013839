"""One look at every slot's dirty bits, with the moment it was made and who cleared some before it.

A look takes nothing: under manual protect KVM_GET_DIRTY_LOG copies, and only QEMU's own
KVM_CLEAR_DIRTY_LOG clears (Linux v6.12, virt/kvm/kvm_main.c, kvm_get_dirty_log_protect).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.memory import words as kernels

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kvmenc.dirtysource import PeekSource
    from kvmenc.memory.slots import MemSlot
    from kvmenc.memory.words import Words

__all__ = ["Peek", "Peeks"]


@dataclass(frozen=True, slots=True)
class Peek:
    """What one look found; a ``DirtySource`` that gives it again and again until the next look.

    Attributes:
        name: where the bits come from.
        before_s: the clock just before the look.
        after_s: the clock just after it.
        words: each slot's dirty words.
    """

    name: str
    before_s: float
    after_s: float
    words: dict[MemSlot, Words]

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's dirty words."""
        for slot in slots:
            yield slot, self.words[slot]

    def since(self, start: Peek) -> Peek:
        """Only what became dirty after ``start``, whose words must have been kept."""
        words = {slot: now & ~start.words[slot] for slot, now in self.words.items()}
        return Peek(self.name, self.before_s, self.after_s, words)

    def kept(self) -> Peek:
        """The same with words of its own, which the next look does not change."""
        words = {slot: words.copy() for slot, words in self.words.items()}
        return Peek(self.name, self.before_s, self.after_s, words)

    def all_dirty(self, slot: MemSlot) -> bool:
        """Whether every page of the slot is dirty, as all are when its log starts; and before."""
        if slot not in self.words:
            return True
        return kernels.count(self.words[slot], slot.npages) == slot.npages

    def dirty_pages(self, slot: MemSlot) -> int:
        """How many pages of the slot are dirty; without a log none."""
        return kernels.count(self.words[slot], slot.npages) if slot in self.words else 0

    def any_dirty(self, slot: MemSlot) -> bool:
        """Whether any page of the slot is dirty."""
        return kernels.count(self.words[slot], slot.npages) > 0


class Peeks:
    """Looks, one after the other, at the slots that have a dirty log.

    Args:
        source: reads the dirty log and clears nothing.
        slots: those to look at.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        source: PeekSource,
        slots: Sequence[MemSlot],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._slots = tuple(slots)
        self._clock = clock
        self._seen: dict[MemSlot, Words] = {}

    def take(self) -> Peek:
        """Look once. The words are valid until the next look.

        Raises:
            SlotNotLogged: a slot has no log (any more).
        """
        return self._timed(lambda: dict(self._source.read(self._slots)))

    def take_some(self) -> Peek:
        """The same, while the log is being started: slots without one are left out."""
        return self._timed(lambda: self._source.look(self._slots))

    def _timed(self, look: Callable[[], dict[MemSlot, Words]]) -> Peek:
        before_s = self._clock()
        words = look()
        return Peek(self._source.name, before_s, self._clock(), words)

    def cleared_since_last(self, peek: Peek) -> tuple[MemSlot, ...]:
        """The slots in which somebody cleared a bit between the look asked of before and this."""
        return tuple(slot for slot in self._slots if self._fell(slot, peek.words[slot]))

    def _fell(self, slot: MemSlot, now: Words) -> bool:
        seen = self._seen.get(slot)
        if seen is None:
            self._seen[slot] = now.copy()
            return False
        np.bitwise_and(seen, np.bitwise_not(now), out=seen)
        kernels.mask_tail(seen, slot.npages)
        fell = bool(seen.any())
        np.copyto(seen, now)
        return fell
