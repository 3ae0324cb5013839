"""A memslot's dirty log: the bitmap that KVM_GET_DIRTY_LOG reads and KVM_CLEAR_DIRTY_LOG clears.

Source: Linux v6.12, virt/kvm/kvm_main.c, kvm_get_dirty_log_protect and
kvm_clear_dirty_log_protect; every line tried on Linux 6.18.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.bits import set_bits, set_range, word_count, zeros
from fakekvm.errors import oserror

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from fakekvm.decode import ClearDirtyLog
    from fakekvm.processmemory import ProcessMemory

__all__ = ["DirtyLog"]


class DirtyLog:
    """1 = dirty, one bit for each of ``npages`` pages; bits behind them stay 0.

    Args:
        npages: of the slot.
        all_dirty: begin with ones (KVM_DIRTY_LOG_INITIALLY_SET).
    """

    __slots__ = ("_address", "_words", "npages")

    def __init__(self, npages: int, *, all_dirty: bool) -> None:
        self.npages = npages
        self._words = zeros(npages)
        self._address = self._words.ctypes.data
        if all_dirty:
            set_range(self._words, 0, npages)

    def mark(self, pages: NDArray[np.int64]) -> None:
        """These pages of the slot are dirty."""
        set_bits(self._words, pages)

    def read(self, memory: ProcessMemory, address: int, *, clear: bool) -> None:
        """Store the bitmap at ``address``: ALIGN(npages, 64) / 8 bytes.

        Raises:
            OSError: EFAULT. The bits are cleared all the same: as in the kernel they are lost.
        """
        try:
            memory.write_from(address, self._address, self._words.nbytes)
        finally:
            if clear:
                self._words.fill(0)

    def clear(self, memory: ProcessMemory, request: ClearDirtyLog) -> None:
        """Clear the bits that are set in the caller's bitmap, whose bit 0 is ``first_page``.

        Raises:
            OSError: EINVAL for a range outside of the slot, or whose length is no multiple of 64
                and that does not reach the slot's end; EFAULT, and then nothing is cleared.
        """
        first, npages = request.first_page, request.num_pages
        rest = self.npages - first
        if rest < 0 or npages > rest or (npages < rest and npages % 64):
            raise oserror(errno.EINVAL)
        mask = np.empty(word_count(npages), "<u8")
        memory.read_array(request.dirty_bitmap, mask)
        low = first // 64
        self._words[low : low + mask.size] &= ~mask
