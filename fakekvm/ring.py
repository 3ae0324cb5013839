"""A vCPU's dirty ring, in the pages that userspace maps at KVM_DIRTY_LOG_PAGE_OFFSET.

Source: Linux v6.12, virt/kvm/dirty_ring.c.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fakekvm.decode import DIRTY_GFN_BYTES, KVM_DIRTY_GFN_F_DIRTY, KVM_DIRTY_GFN_F_RESET, U32

if TYPE_CHECKING:
    import mmap

    from numpy.typing import NDArray

__all__ = ["DirtyRing"]

_ENTRY = np.dtype([("flags", "<u4"), ("slot", "<u4"), ("offset", "<u8")])  # kvm_dirty_gfn
_CHUNK_ENTRIES = 256  # every ring's size is a multiple of it


class DirtyRing:
    """The ring in ``area``.

    Args:
        area: the shared pages.
        first_byte: where in them the ring begins.
        size_bytes: a power of two.
        reserved_entries: how many entries before it is really full it counts as full.
    """

    def __init__(
        self, area: mmap.mmap, first_byte: int, size_bytes: int, reserved_entries: int
    ) -> None:
        count = size_bytes // DIRTY_GFN_BYTES
        self._entries = np.frombuffer(area, _ENTRY, count, first_byte)
        self._soft_limit = count - reserved_entries
        # Free-running 32-bit counters, like the kernel's.
        self._dirty_index = 0
        self._reset_index = 0
        # Only adding an entry finds that the ring is full. This matters where userspace took back
        # entries that were never there, and the counters say nonsense.
        self._was_filled = False

    def _used(self) -> int:
        return self._dirty_index - self._reset_index & U32

    def is_full(self) -> bool:
        """Whether the vCPU must exit with KVM_EXIT_DIRTY_RING_FULL.

        If it need not, that it was filled once is forgotten: kvm_dirty_ring_check_request.
        """
        self._was_filled = self._was_filled and self._used() >= self._soft_limit
        return self._was_filled

    def room(self) -> int:
        """Entries that a ring that is not full takes until it is; at least 1."""
        return max(1, self._soft_limit - self._used())

    def push(self, keys: NDArray[np.uint32], pages: NDArray[np.int64]) -> None:
        """Add entries, at most ``room()`` of them.

        Args:
            keys: slot id | address space << 16.
            pages: offsets in the slots.
        """
        if not pages.size:
            return
        at = self._at(self._dirty_index, pages.size)
        self._entries["slot"][at] = keys
        self._entries["offset"][at] = pages
        self._entries["flags"][at] = KVM_DIRTY_GFN_F_DIRTY  # last: it publishes the entry
        self._dirty_index = self._dirty_index + pages.size & U32
        self._was_filled = self._was_filled or self._used() >= self._soft_limit

    def _at(self, first: int, count: int) -> NDArray[np.int64]:
        return (first + np.arange(count)) % self._entries.size

    def _count_harvested(self) -> int:
        """Entries from ``_reset_index`` on that userspace has harvested."""
        for first in range(0, self._entries.size, _CHUNK_ENTRIES):
            flags = self._entries["flags"][self._at(self._reset_index + first, _CHUNK_ENTRIES)]
            waiting = np.flatnonzero((flags & KVM_DIRTY_GFN_F_RESET) == 0)
            if waiting.size:
                return first + int(waiting[0])
        return self._entries.size

    def reset(self) -> tuple[NDArray[np.uint32], NDArray[np.uint64]]:
        """Take back the entries that userspace has harvested, up to the first that it has not.

        Returns:
            keys, pages: of the entries taken back.
        """
        at = self._at(self._reset_index, self._count_harvested())
        taken = self._entries[at]
        self._entries["flags"][at] = 0
        self._reset_index = self._reset_index + at.size & U32
        return taken["slot"], taken["offset"]
