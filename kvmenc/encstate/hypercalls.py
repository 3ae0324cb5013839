"""Private/shared as the guest announces it: KVM_EXIT_HYPERCALL with KVM_HC_MAP_GPA_RANGE.

KVM keeps no state of these announcements (Linux v6.12, Documentation/virt/kvm/x86/hypercalls.rst):
userspace must, from the guest's start on. All memory is private until the guest says otherwise.
SNP page-state changes and TDX MapGPA reach userspace as the same exit.
"""

from __future__ import annotations

import errno
import threading
from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.encstate.gfnstate import GfnState

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvmenc.encstate.gfnstate import Gfns
    from kvmenc.memory.slots import MemSlot
    from kvmenc.memory.words import Words

__all__ = ["MapGpaTracker"]

PAGE_SHIFT = 12  # the hypercall counts in 4 KiB pages, whatever the host's page size

DONE = 0
KVM_EINVAL = errno.EINVAL  # by include/uapi/linux/kvm_para.h


class MapGpaTracker:
    """A ``PrivateSource`` fed by vCPU threads.

    Memory: one bit for each page of ``slots``, however many announcements come. An announcement
    for gfns outside them is answered with success, as KVM would, and not kept: a guest declares
    whole E820 ranges, holes and all. So give every slot that will exist, hotplugged ones included.

    Args:
        slots: the memslots whose pages are followed.

    Attributes:
        unkept_pages: pages announced as shared that lie outside ``slots``.
    """

    name = "hypercall exits"

    def __init__(self, slots: Iterable[MemSlot]) -> None:
        self._state = GfnState(slots)
        self._lock = threading.Lock()
        self.unkept_pages = 0

    def apply(self, gpa: int, npages: int, attributes: int) -> int:
        """Enter one announcement; any thread may call it at any time.

        Args:
            gpa: guest physical address, in bytes.
            npages: 4 KiB pages.
            attributes: bit 4 = private; the page-size hint in bits 3:0 changes nothing.

        Returns:
            What to give back to the guest: 0, or -KVM_EINVAL where KVM itself refuses (gpa not
            aligned, no pages, a range that wraps; Linux v6.12, arch/x86/kvm/x86.c).
        """
        gfn = gpa >> PAGE_SHIFT
        if gpa != gfn << PAGE_SHIFT or npages <= 0 or gfn + npages >= 1 << 64:
            return -KVM_EINVAL
        private = bool(attributes & uapi.KVM_MAP_GPA_RANGE_ENCRYPTED)
        with self._lock:
            known = self._state.set_range(gfn, npages, private=private)
            if not private:
                self.unkept_pages += npages - known
        return DONE

    def apply_many(self, gfns: Gfns, end_gfns: Gfns, *, private: bool) -> None:
        """Enter any number of announcements of one kind, all at once.

        Args:
            gfns: the first of each.
            end_gfns: the one after the last of each; ranges do not overlap.
            private: what they announce.
        """
        with self._lock:
            known = self._state.set_many(gfns, end_gfns, private=private)
            if not private:
                self.unkept_pages += int((end_gfns - gfns).sum()) - known

    def reset(self) -> None:
        """All is private again, as when the guest was reset; a reset itself announces nothing."""
        with self._lock:
            self._state.reset()

    def handle_exit(self, run: uapi.kvm_run) -> None:
        """Answer the KVM_EXIT_HYPERCALL in ``run``; other hypercalls get -KVM_ENOSYS."""
        call = run.hypercall
        if call.nr == uapi.KVM_HC_MAP_GPA_RANGE:
            call.ret = self.apply(*call.args[:3])
        else:
            call.ret = -uapi.KVM_ENOSYS

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's private words, all as of one instant: never half a flip."""
        with self._lock:
            snapshot = [self._state.words_of(slot) for slot in slots]
        yield from zip(slots, snapshot, strict=True)

    def shared_ranges(self) -> tuple[Gfns, Gfns]:
        """What is shared, as one list: what a migration sends at its end, with the guest stopped.

        It is of one instant, as what ``read`` yields.

        Returns:
            First gfns, and those after the last ones, ascending; ranges neither overlap nor touch.
            Gfns outside ``slots`` are in none.
        """
        with self._lock:
            return self._state.shared_ranges()
