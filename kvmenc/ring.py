"""A vCPU's dirty ring: the kernel appends (slot, page) entries, userspace takes them in order.

Source: Linux v6.12, Documentation/virt/kvm/api.rst 8.29 (KVM_CAP_DIRTY_LOG_RING) and
virt/kvm/dirty_ring.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from kvmenc import uapi
from kvmenc.errors import HostError

if TYPE_CHECKING:
    import mmap

    from numpy.typing import NDArray

__all__ = ["DirtyRing"]

_ENTRY = np.dtype([("flags", "<u4"), ("slot", "<u4"), ("offset", "<u8")])


class DirtyRing:
    """The mapped ring of one vCPU. One thread at a time may harvest it; the vCPU may run."""

    def __init__(self, area: mmap.mmap) -> None:
        self._entries: NDArray[np.void] = np.frombuffer(area, dtype=_ENTRY)
        self._next = 0

    def close(self) -> None:
        """Let go of the mapping (its owner unmaps it)."""
        self._entries = np.empty(0, dtype=_ENTRY)

    def harvest(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Take all entries that are ready.

        Returns:
            slots (id in the low 16 bits, address space above, as the kernel writes it) and pages
            (offset within the slot), one each per entry, oldest first. A page may come twice.

        Raises:
            HostError: every entry was ready. A kernel stops the vCPU before that, so it has written
                past the oldest entries: pages are lost (seen on a KVM that emulates guest code in
                batches and looks at the ring only between them).

        The entries are handed back by ``Vm.reset_dirty_rings``, which protects the pages again:
        call it before reading the pages' contents.
        """
        parts = [self._harvest_run(), self._harvest_run()]  # the ready ones may wrap round once
        slots = np.concatenate([slots for slots, _ in parts])
        if slots.size == self._entries.size > 0:
            msg = f"the dirty ring overflowed its {slots.size} entries: pages are lost; use the log"
            raise HostError(msg)
        return slots, np.concatenate([pages for _, pages in parts])

    def _harvest_run(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        ahead = self._entries[self._next :]
        ready = _leading_ones(ahead["flags"] & uapi.KVM_DIRTY_GFN_F_DIRTY)
        taken = ahead[:ready]
        # Copied before the flag says "harvested": from then on the kernel may reuse the entry.
        slots, pages = taken["slot"].copy(), taken["offset"].copy()
        taken["flags"] = uapi.KVM_DIRTY_GFN_F_RESET
        self._next = (self._next + ready) % max(self._entries.size, 1)
        return slots, pages


def _leading_ones(flags: NDArray[np.integer[Any]]) -> int:
    """How many entries from the front are non-zero."""
    if flags.size == 0 or flags.all():
        return int(flags.size)
    return int(np.argmin(flags))
