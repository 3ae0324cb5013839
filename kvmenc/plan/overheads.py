"""What takes time in a migration beside pages: setting up, syncs, device state.

A sync copies the kernel's log of each memslot, then goes over every RAMBlock. Both take 64 pages at
a time where the start lies on a multiple of 64 pages and, for a block, its size is one; elsewhere
they go page by page (QEMU 10.0, include/exec/ram_addr.h, ``cpu_physical_memory_set_dirty_lebitmap``
and ``cpu_physical_memory_sync_dirty_bitmap``). In a block whose size is none each page, clean or
dirty, costs an ioctl of its own (system/physmem.c, ``cpu_physical_memory_test_and_clear_dirty``):
128 ms for 256 MiB and two pages more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kvmenc.capture import Capture

__all__ = ["Overheads"]

#: By QEMU's own trace of ``migration_bitmap_sync``, 7.2 and 10.0, guests of 0.25 to 3 GiB
#: (tests/qemu/test_capabilities.py); at 256 GiB others measured 7.5 ms for 7.2 ms here (C. Xu,
#: qemu-devel, 20251218114220.83354-1).
_SYNC_MS, _SYNC_MS_PER_GIB = 0.03, 0.028
#: Likewise, 0.8 to 2.8 for each page of a block that is no multiple of 64.
_SYNC_US_PER_ODD_PAGE = 1.5
#: For a page of a slot that begins at none: an atomic operation for a dirty one; not measured.
_SYNC_US_PER_CROOKED_PAGE = 0.01
#: Stopping vCPUs, and device state, of small guests of QEMU 7.2 with nothing to send: 1 to 2.
_DEVICES_MS = 1.0
#: The median of the same guests, connecting included; single ones took up to 500 ms to get QEMU's
#: lock.
_SETUP_MS = 12.0
#: A thread that sleeps until a window's end wakes up so much later, likewise.
WAKE_MS = 0.1
_WORD_PAGES = 64
_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Overheads:
    """Times in milliseconds.

    Attributes:
        setup_ms: QEMU's setup-time: switching the dirty log on, and the first sync.
        sync_ms: each further sync.
        devices_ms: stopping the guest, and its device state.
    """

    setup_ms: float
    sync_ms: float
    devices_ms: float = _DEVICES_MS

    @classmethod
    def of(cls, capture: Capture) -> Overheads:
        """For the captured guest."""
        gib = capture.npages * capture.page_size / _GIB
        odd = sum(it.npages for it in capture.blocks if it.npages % _WORD_PAGES)
        crooked = sum(it.npages for it in capture.slots if it.block_page % _WORD_PAGES)
        single_us = odd * _SYNC_US_PER_ODD_PAGE + crooked * _SYNC_US_PER_CROOKED_PAGE
        sync_ms = _SYNC_MS + gib * _SYNC_MS_PER_GIB + single_us / 1000
        return cls(setup_ms=_SETUP_MS + sync_ms, sync_ms=sync_ms)
