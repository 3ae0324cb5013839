"""Private/shared from KVM_GET_PAGE_ENC_BITMAP and its kin, whichever revision the kernel has.

None of them is in mainline, and one number means different things in different revisions. So a
revision is first offered by the kernel (``offered_revisions``), then chosen by its name.
"""

from __future__ import annotations

import ctypes
import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi
from kvmenc.encstate.gfnstate import GFN_LIMIT
from kvmenc.errors import HostError, InputError, IoctlError, NotSupported, errno_name
from kvmenc.memory.words import Words, clear_ranges, mask_tail, ones, words_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kvmenc.kvm import Vm
    from kvmenc.memory.slots import MemSlot
    from kvmenc.uapi import Ioctl, PageEncRevision

__all__ = ["Offer", "PageEncSource", "offered_revisions"]

# The kernel kmallocs a bitmap of the range asked for: more than 4 MiB (128 GiB of guest) fails with
# ENOMEM, and less may when its memory is fragmented. 128 KiB (4 GiB of guest) hardly ever does, and
# of what fits in a page there is always some.
CHUNK_PAGES, LEAST_CHUNK_PAGES = 1 << 20, 1 << 15

# Of a list too the kernel kmallocs a copy, so it has no more than 4 MiB of entries to give.
FIRST_ENTRIES, MAX_ENTRIES = 256, 1 << 18

_ALL_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


@dataclass(frozen=True, slots=True)
class Offer:
    """What a kernel answered when asked for each revision's GET number.

    Attributes:
        candidates: revisions whose number is implemented; which one it is, no kernel tells.
        unclear: calls with an answer that says neither yes nor no, one line each.
    """

    candidates: tuple[PageEncRevision, ...]
    unclear: tuple[str, ...]

    def choose(self, name: str | None) -> PageEncRevision:
        """The revision called ``name``; without a name, the only candidate.

        Raises:
            InputError: no such name, or several candidates and no name.
            NotSupported: the kernel does not offer it, or it is unclear whether it does.
        """
        if name is not None and name not in uapi.REVISIONS:
            msg = f"no encryption bitmap revision {name!r}; there are: {', '.join(uapi.REVISIONS)}"
            raise InputError(msg)
        names = [revision.name for revision in self.candidates]
        if name is None and len(names) > 1:
            msg = (
                f"this kernel's encryption bitmap may be any of {', '.join(names)}, and a wrong"
                " choice can corrupt memory: name the one it was built with, --enc-revision NAME"
            )
            raise InputError(msg)
        for revision in self.candidates:
            if name in (None, revision.name):
                return revision
        raise NotSupported(self._why_not(name))

    def _why_not(self, name: str | None) -> str:
        wanted = f"revision {name} of the encryption bitmap" if name else "an encryption bitmap"
        others = ", ".join(revision.name for revision in self.candidates)
        hint = f"; it may have: {others}" if others else ""
        if self.unclear:
            return (
                f"it is not clear if this kernel offers {wanted}{hint}; {', '.join(self.unclear)}"
            )
        return f"this kernel does not offer {wanted}{hint}"


def offered_revisions(scratch: Vm) -> Offer:
    """Ask a kernel which revisions it may have, without changing anything.

    Each GET number is issued with a NULL argument. Every revision reads its argument before it
    looks at the VM, so EFAULT means that the number is implemented, and ENOTTY that it is not. The
    RESET numbers are never issued: one of them is mainline's KVM_RESET_DIRTY_RINGS.

    Args:
        scratch: a VM made for this, with no guest in it: a number may mean anything in a kernel
            that nobody has read.
    """
    numbers: dict[int, Ioctl] = {int(r.get): r.get for r in uapi.REVISIONS.values()}
    answers = {number: _answer(scratch, request) for number, request in numbers.items()}
    return Offer(
        candidates=tuple(r for r in uapi.REVISIONS.values() if answers[r.get] == "EFAULT"),
        unclear=tuple(
            f"{uapi.name_of(number)}(NULL), {number:#010x}, gives {answer}"
            for number, answer in answers.items()
            if answer not in {"EFAULT", "ENOTTY"}
        ),
    )


def _answer(scratch: Vm, request: Ioctl) -> str:
    try:
        value = scratch.ioctl(request, 0)
    except NotSupported:
        return "ENOTTY"
    except IoctlError as error:
        return errno_name(error.errno or 0)
    return f"success ({value})"


class PageEncSource:
    """A ``PrivateSource`` read from the kernel by one revision's GET.

    What ``v10`` answers can be wrong in itself: making part of a shared range private takes a page
    more on each side (remove_shared_region reads exclusive ends as inclusive), and leaves empty
    entries. Those pages read private here, as the kernel says.

    Args:
        vm: the encrypted VM, in this process.
        revision: what ``Offer.choose`` returned; a revision that the kernel does not have could
            make it write to addresses that were never meant as such.
    """

    def __init__(self, vm: Vm, revision: PageEncRevision) -> None:
        self._vm = vm
        self._revision = revision
        self._entries = np.zeros((FIRST_ENTRIES, 2), "<u8")
        self._buffer = np.empty(0, "<u8")
        self._chunk_pages = CHUNK_PAGES
        self.name = f"{revision.get.name} ({revision.name})"

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's private words; valid until the next is asked for.

        Raises:
            NotSupported: ENOTTY: the VM is not an encrypted one.
            IoctlError: ENOMEM, EFAULT, or another errno.
            HostError: a list that makes no sense; nothing of it was used.
        """
        if self._revision.kind == uapi.Kind.LIST:
            yield from self._from_list(slots)
            return
        by_slot = self._revision.addressing == uapi.Addressing.SLOT
        get = self._get_slot if by_slot else self._get_gfns
        inverted = self._revision.polarity == uapi.Polarity.SHARED
        for slot in slots:
            words = self._words(slot.npages)
            # The default, private: what a kernel leaves as it is must not be taken for shared.
            words.fill(0 if inverted else _ALL_ONES)
            get(slot, words)
            if inverted:
                np.invert(words, out=words)
            mask_tail(words, slot.npages)
            yield slot, words

    def _words(self, npages: int) -> Words:
        """As many words as the kernel writes: ALIGN(npages, 64) bits, in a buffer used again."""
        nwords = words_for(npages)
        if self._buffer.size < nwords:
            self._buffer = np.empty(nwords, "<u8")
        return self._buffer[:nwords]

    def _get_slot(self, slot: MemSlot, words: Words) -> None:
        arg = uapi.kvm_unencrypted_bitmap(slot=slot.key)
        arg.bitmap = words.ctypes.data  # self._buffer holds the words during the call
        self._vm.ioctl(self._revision.get, arg, f"slot={slot.slot_id}")

    def _get_gfns(self, slot: MemSlot, words: Words) -> None:
        first = 0
        while first < slot.npages:
            npages = min(self._chunk_pages, slot.npages - first)
            try:
                self._get_chunk(slot.base_gfn + first, npages, words[first // 64 :])
            except IoctlError as error:
                if error.errno != errno.ENOMEM or npages <= LEAST_CHUNK_PAGES:
                    raise
                self._chunk_pages = max(LEAST_CHUNK_PAGES, npages // 128 * 64)
            else:
                first += npages

    def _get_chunk(self, gfn: int, npages: int, words: Words) -> None:
        arg = uapi.kvm_page_enc_bitmap(start_gfn=gfn, num_pages=npages)
        arg.enc_bitmap = words.ctypes.data  # self._buffer holds the words during the call
        self._vm.ioctl(self._revision.get, arg, f"start_gfn={gfn:#x}, num_pages={npages}")

    def _from_list(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        starts, ends = self._shared_gfns()
        for slot in slots:
            first = np.clip(starts, slot.base_gfn, slot.end_gfn) - slot.base_gfn
            last = np.clip(ends, slot.base_gfn, slot.end_gfn) - slot.base_gfn
            words = ones(slot.npages)
            clear_ranges(words, first, last)
            yield slot, words

    def _shared_gfns(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        count = self._get_list()
        if not 0 <= count <= len(self._entries):
            raise self._bad_list(f"{count} entries where {len(self._entries)} fit")
        starts, ends = self._entries[:count].T
        wrong = np.flatnonzero((starts > ends) | (ends > GFN_LIMIT))
        if len(wrong):
            entry = int(wrong[0])
            what = f"entry {entry} runs from gfn {int(starts[entry]):#x} to {int(ends[entry]):#x}"
            raise self._bad_list(what)
        return starts.astype(np.int64), ends.astype(np.int64)

    def _get_list(self) -> int:
        """Fill ``_entries``, larger ones while the kernel says E2BIG; returns the entry count."""
        while True:
            try:
                return self._get_list_once()
            except IoctlError as error:
                if error.errno != errno.E2BIG:
                    raise
            if len(self._entries) >= MAX_ENTRIES:
                raise self._bad_list(f"more than {MAX_ENTRIES} entries")
            self._entries = np.zeros((2 * len(self._entries), 2), "<u8")

    def _get_list_once(self) -> int:
        count = ctypes.c_int(0)
        # The count has been larger than what was written; an entry of 0 says nothing is shared.
        self._entries.fill(0)
        arg = uapi.kvm_shared_pages_list(size=self._entries.nbytes)
        # count and self._entries outlive the call
        arg.pnents, arg.buffer = ctypes.addressof(count), self._entries.ctypes.data
        self._vm.ioctl(self._revision.get, arg, f"size={arg.size}")
        return count.value

    def _bad_list(self, what: str) -> HostError:
        revision, get = self._revision.name, self._revision.get.name
        return HostError(f"{get} gave a list that makes no sense ({what}): is it {revision}?")
