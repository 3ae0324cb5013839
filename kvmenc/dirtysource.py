"""Where dirty bits come from: a VM's dirty log, or its vCPUs' dirty rings.

Both hold the writes of vCPUs only: what devices of the VMM write never enters them (design law 5).
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import HostError
from kvmenc.memory.words import Words, words_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.kvm import Vm
    from kvmenc.memory.slots import MemSlot
    from kvmenc.ring import DirtyRing

__all__ = ["DirtyLogSource", "DirtyRingSource"]


class DirtyLogSource:
    """Reads KVM_GET_DIRTY_LOG, slot by slot.

    Args:
        vm: the VM, in this process.
        manual_protect: whether manual protect was enabled on it. If so the kernel's bits are
            cleared here, after the reader has merged them: none can be lost in between.
    """

    def __init__(self, vm: Vm, *, manual_protect: bool) -> None:
        self._vm = vm
        self._manual_protect = manual_protect
        self.name = "dirty log, manual protect" if manual_protect else "dirty log"

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's dirty words; valid until the next is asked for."""
        for slot in slots:
            words = self._vm.dirty_log(slot)
            yield slot, words
            if self._manual_protect:
                self._vm.clear_dirty_log(slot, words)


class DirtyRingSource:
    """Collects the dirty rings of all vCPUs into one bitmap a slot.

    Args:
        vm: the VM, with its ring enabled.
        rings: the rings of all its vCPUs.
        slots: every slot whose pages may appear.
    """

    name = "dirty ring"

    def __init__(self, vm: Vm, rings: Sequence[DirtyRing], slots: Sequence[MemSlot]) -> None:
        self._vm = vm
        self._rings = tuple(rings)
        self._words = {slot.key: np.zeros(words_for(slot.npages), dtype="<u8") for slot in slots}
        self._lock = threading.Lock()

    def collect(self) -> int:
        """Empty the rings into the bitmaps; returns the entries taken.

        Call it also when a vCPU stops with ``Exit.DIRTY_RING_FULL``, from any thread.
        """
        with self._lock:
            taken = [ring.harvest() for ring in self._rings]
            for slots, pages in taken:
                self._mark(slots, pages)
            self._vm.reset_dirty_rings()
            return sum(pages.size for _, pages in taken)

    def _mark(self, slots: np.ndarray, pages: np.ndarray) -> None:
        for key in np.unique(slots):
            words = self._words.get(int(key))
            if words is None:
                msg = f"the dirty ring names slot {int(key):#x}, which is not in the layout"
                raise HostError(msg)
            mine = pages[slots == key]
            if mine.max() >= words.size * 64:
                msg = f"the dirty ring names page {int(mine.max())} beyond slot {int(key):#x}"
                raise HostError(msg)
            bits = np.uint64(1) << (mine & np.uint64(63))
            np.bitwise_or.at(words, (mine >> np.uint64(6)).astype(np.intp), bits)

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's dirty words; valid until the next is asked for."""
        self.collect()
        for slot in slots:
            words = self._words[slot.key].copy()
            yield slot, words
            with self._lock:  # only what was merged; a vCPU thread may have collected more
                self._words[slot.key] &= ~words
