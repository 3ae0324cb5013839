"""Where a guest's writes go: from gfns to memslots and host addresses, many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fakekvm.decode import KVM_MEM_READONLY, PAGE_SHIFT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from fakekvm.memslots import Slot

__all__ = ["GuestMap", "Placement"]


class Placement(NamedTuple):
    """Of each gfn: its slot (index into ``GuestMap.slots``), page in the slot, host address.

    The slot is -1 where the guest cannot write: in a hole or a read-only slot.
    """

    slots: NDArray[np.int64]
    pages: NDArray[np.int64]
    addresses: NDArray[np.uint64]


class GuestMap:
    """The slots that a guest sees.

    Attributes:
        slots: by gfn.
        keys: theirs.
    """

    def __init__(self, slots: Iterable[Slot]) -> None:
        self.slots = sorted(slots, key=lambda slot: slot.base_gfn)
        self.keys = np.array([slot.key for slot in self.slots], np.uint32)
        rows = [
            (s.base_gfn, s.npages, s.userspace_addr, int(not s.flags & KVM_MEM_READONLY))
            for s in self.slots
        ]
        self._table = np.array(rows or [(0, 0, 0, 0)], np.int64)

    @property
    def end_gfn(self) -> int:
        """The gfn behind the highest slot."""
        return self.slots[-1].end_gfn if self.slots else 0

    def place(self, gfns: NDArray[np.int64]) -> Placement:
        """Where writes to ``gfns`` go."""
        index = np.searchsorted(self._table[:, 0], gfns, side="right") - 1
        base, npages, address, writable = self._table[index].T
        pages = gfns - base
        inside = (pages >= 0) & (pages < npages) & (writable != 0)
        addresses = (address + (pages << PAGE_SHIFT)).astype(np.uint64)
        return Placement(np.where(inside, index, -1), pages, addresses)
