"""The out-of-tree encryption state ioctls of one revision.

They are part of a fake VM, or laid over a real one that has none.
"""

from __future__ import annotations

import errno
import os
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.bits import word_count
from fakekvm.decode import (
    KVM_EINVAL,
    PAGE_ENC_BITMAP,
    SHARED_PAGES_LIST,
    U64,
    UNENCRYPTED_BITMAP,
    PageEncBitmap,
)
from fakekvm.encpages import EncPages, SharedList
from fakekvm.errors import oserror
from fakekvm.processmemory import ProcessMemory
from fakekvm.revisions import REVISIONS, Form

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm.bits import Words

__all__ = ["EncBitmap"]

_KMALLOC_MAX_BYTES = 4 << 20
_ENTRY_BYTES = 16


class EncBitmap:
    """The state, and the ioctls that read and set it. Any thread may call.

    Args:
        revision: a name of ``revisions.REVISIONS``.
        sev: whether the VM is a SEV guest; if not, every call ends in ENOTTY.
        find_slot: base gfn and pages of a memslot by its key (id | address space << 16), or
            ENOENT or EINVAL as ``OSError``. Only ``rfc-2018`` asks for it.

    Attributes:
        requests: the numbers of this revision's ioctls.

    Raises:
        KeyError: there is no such revision.
    """

    def __init__(
        self,
        revision: str,
        *,
        sev: bool = True,
        find_slot: Callable[[int], tuple[int, int]] | None = None,
    ) -> None:
        self._revision = REVISIONS[revision]
        self._sev = sev
        self._find_slot = find_slot
        self._pages = EncPages()
        self._list = SharedList()
        self._sized_by_slots = False
        self._lock = threading.Lock()
        form = self._revision.form
        self._calls: dict[int, Callable[[int, ProcessMemory], int]]
        if form is Form.LIST:
            self._calls = {self._revision.get: self._get_list, self._revision.set: self._set_list}
        elif form is Form.SLOT_BITMAP:
            self._calls = {self._revision.get: self._get_slot}
        else:
            self._calls = {self._revision.get: self._get, self._revision.set: self._set}
        if self._revision.reset:
            self._calls[self._revision.reset] = self._reset
        self.requests = self._calls.keys()

    def ioctl(self, request: int, arg: int, memory: ProcessMemory | None = None) -> int:
        """Carry out a call of this revision.

        Args:
            request: one of ``requests``.
            arg: the address of the argument.
            memory: whose address that is; this process's by default.

        Raises:
            OSError: EFAULT before anything else where the argument cannot be read (which is what
                probing with NULL rests on), then ENOTTY where the VM is no SEV guest, then the
                call's own errors.
        """
        return self._calls[request](arg, memory or ProcessMemory(os.getpid()))

    def set_range(self, gfn: int, npages: int, private: bool) -> int:
        """The guest's hypercall KVM_HC_PAGE_ENC_STATUS; returns what the guest gets."""
        end = gfn + npages
        if not self._sev or end > U64:
            return -KVM_EINVAL
        if not npages:
            return 0
        with self._lock:
            if self._revision.form is Form.LIST:
                return (self._list.remove if private else self._list.add)(gfn, end)
            if self._sized_by_slots and end > self._pages.size:
                return 0
            try:
                self._pages.resize(end)
            except OSError as error:
                return -(error.errno or 0)
            self._pages.mark(gfn, end, private=private)
            return 0

    def slot_created(self, end_gfn: int) -> None:
        """A memslot was created, and the highest one now ends at ``end_gfn``.

        Never called, as over a real KVM, announcements size the bitmap in every revision.
        """
        if not self._revision.sized_by_slots or not self._sev:
            return
        # As in the kernel, the slot is there even if there is no memory for the bitmap.
        with self._lock, suppress(OSError):
            self._sized_by_slots = True
            self._pages.resize(end_gfn)

    def _only_sev(self) -> None:
        if not self._sev:
            raise oserror(errno.ENOTTY)

    def _get(self, arg: int, memory: ProcessMemory) -> int:
        wanted = PAGE_ENC_BITMAP.read(memory, arg)
        self._only_sev()
        nbytes = _kmalloc_bytes(wanted.num_pages)
        if wanted.num_pages and not nbytes:  # the size wrapped around
            return self._get_wrapped()
        with self._lock:
            private = self._pages.private(wanted.start_gfn, wanted.num_pages)
        if self._revision.keeps_tail:
            nbytes = (wanted.num_pages + 7) // 8
            _keep_tail(private, wanted, memory)
        memory.write_from(wanted.enc_bitmap, private.ctypes.data, nbytes)
        return 0

    def _get_wrapped(self) -> int:
        if self._revision.keeps_tail:
            raise oserror(errno.EFAULT)
        return 0

    def _set(self, arg: int, memory: ProcessMemory) -> int:
        given = PAGE_ENC_BITMAP.read(memory, arg)
        self._only_sev()
        if self._revision.set_copies_words and not given.enc_bitmap:
            with self._lock:
                self._pages.reset()
            return 0
        private = np.empty(_kmalloc_bytes(given.num_pages) // 8, "<u8")
        memory.read_array(given.enc_bitmap, private)
        with self._lock:
            self._store(given, private)
        return 0

    def _store(self, given: PageEncBitmap, private: Words) -> None:
        start, end = given.start_gfn, given.start_gfn + given.num_pages & U64
        self._pages.resize(end)
        if not self._revision.set_copies_words:
            self._pages.only_clear(start, min(given.num_pages, private.size * 64), private)
        elif end < start:  # the kernel would write outside of its bitmap
            raise oserror(errno.EFAULT)
        else:
            self._pages.copy_words(start, private)

    def _reset(self, _arg: int, _memory: ProcessMemory) -> int:
        self._only_sev()
        with self._lock:
            self._pages.reset()
        return 0

    def _get_slot(self, arg: int, memory: ProcessMemory) -> int:
        wanted = UNENCRYPTED_BITMAP.read(memory, arg)
        self._only_sev()
        if self._find_slot is None:
            raise oserror(errno.ENOENT)
        base_gfn, npages = self._find_slot(wanted.slot)
        with self._lock:
            shared = ~self._pages.private(base_gfn, npages)
        memory.write_array(wanted.bitmap, shared)
        return 0

    def _get_list(self, arg: int, memory: ProcessMemory) -> int:
        wanted = SHARED_PAGES_LIST.read(memory, arg)
        self._only_sev()
        if not wanted.size:
            raise oserror(errno.EINVAL)
        with self._lock:
            ranges, count = list(self._list.ranges), self._list.count
        if not count:
            memory.write(wanted.pnents, bytes(4))
            return 0
        if not 0 <= count * _ENTRY_BYTES <= wanted.size:
            raise oserror(errno.E2BIG)
        if count * _ENTRY_BYTES > _KMALLOC_MAX_BYTES:
            raise oserror(errno.ENOMEM)
        # The kernel's copy of a list that is longer than its count overruns; this one does not.
        memory.write_array(wanted.buffer, np.array(ranges[:count], "<u8"))
        memory.write(wanted.pnents, len(ranges).to_bytes(4, "little"))
        return 0

    def _set_list(self, arg: int, memory: ProcessMemory) -> int:
        given = SHARED_PAGES_LIST.read(memory, arg)
        self._only_sev()
        count = int.from_bytes(memory.read(given.pnents, 4), "little", signed=True)
        if not given.buffer or not count:
            with self._lock:
                self._list = SharedList()
            return 0
        if not 0 <= count * _ENTRY_BYTES <= _KMALLOC_MAX_BYTES:
            raise oserror(errno.ENOMEM)
        ranges = np.empty((count, 2), "<u8")
        memory.read_array(given.buffer, ranges)
        with self._lock:
            self._list.ranges += [(start, end) for start, end in ranges.tolist()]
            self._list.count = count
        return 0


def _kmalloc_bytes(npages: int) -> int:
    """Bytes of whole words for ``npages`` bits; 64-bit arithmetic, so it may wrap to 0.

    Raises:
        OSError: ENOMEM, over 4 MiB (128 GiB of guest).
    """
    nbytes = word_count(npages) * 8 & U64 >> 3
    if nbytes > _KMALLOC_MAX_BYTES:
        raise oserror(errno.ENOMEM)
    return nbytes


def _keep_tail(private: Words, wanted: PageEncBitmap, memory: ProcessMemory) -> None:
    """Take the bits past the range in its last byte from the caller's buffer."""
    place, used = divmod(wanted.num_pages, 8)
    if used:
        mask = (1 << used) - 1
        theirs = memory.read(wanted.enc_bitmap + place & U64, 1)[0]
        octets = private.view(np.uint8)
        octets[place] = octets[place] & mask | theirs & ~mask
