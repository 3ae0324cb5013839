"""Models of other people's defects. They are wrong on purpose: NOT FOR USE outside the tests.

What the private/shared bitmap code posted for QEMU really computes, word by word, so that a test
can show a defect to be real before it shows that kvmenc does not have it. Written from the code's
behaviour. A bitmap is a list of 64-bit ints, bit i = page i, 1 = private; ``space`` is QEMU's one
bitmap for all RAM, in which RAMBlocks are neighbours.

- v2: "[PATCH v2 04/13] kvm: add support to sync the page encryption state bitmap", 2019-07-10,
  Message-ID 20190710202219.25939-5-brijesh.singh@amd.com.
- v3: "[PATCH v3 12/14]" of the same name, 2019-08-06,
  Message-ID 20190806165429.19327-13-brijesh.singh@amd.com.
- 2020: v3 with its mask fixed, AMDESE/qemu commit 6dd8ad8e6d, "Fix bitmask computation".

The functions are the versions as they are. ``Code`` is a whole sync of a version, of which defects
can be repaired one by one, for an audit of which of them spoils which page.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

FULL = (1 << 64) - 1
PAGE = 4096
DIRTY_MEMORY_BLOCK_PAGES = 256 * 1024 * 8


class HeapOverrun(Exception):
    """The kernel was given a buffer smaller than what it was asked to write."""


class VmKilled(Exception):
    """The migration's caller gave up the guest."""


@dataclass(frozen=True)
class Span:
    """A slot's, or a memory region section's, pages: first gfn and length."""

    gfn: int
    npages: int


def copy_v2(space: list[int], start: int, bitmap: list[int], npages: int) -> None:
    """cpu_physical_memory_set_dirty_enc_lebitmap() of v2, with enc_map set."""
    if start % 64 == 0:
        _copy_aligned(space, start, bitmap, npages)
        return
    for i in range(_longs(npages)):
        set_range_v2(space, start + i, 1, bitmap[i])


def set_range_v2(space: list[int], start: int, npages: int, value: int) -> None:
    """cpu_physical_memory_set_encrypted_range() of v2."""
    page, end = start, start + npages
    while page < end:
        space[page // 64] = value
        page += min(end - page, DIRTY_MEMORY_BLOCK_PAGES - page % DIRTY_MEMORY_BLOCK_PAGES)


def copy_v3(space: list[int], start: int, bitmap: list[int], npages: int) -> None:
    """cpu_physical_memory_set_encrypted_lebitmap() of v3."""
    _copy_since_v3(space, start, bitmap, npages, mask_fixed=False)


def copy_2020(space: list[int], start: int, bitmap: list[int], npages: int) -> None:
    """The same of 2020."""
    _copy_since_v3(space, start, bitmap, npages, mask_fixed=True)


def _copy_since_v3(
    space: list[int], start: int, bitmap: list[int], npages: int, *, mask_fixed: bool
) -> None:
    if start % 64 == 0:
        _copy_aligned(space, start, bitmap, npages)
        return
    address = start * PAGE
    for value in bitmap:
        length = min(npages, 64)
        _set_range_since_v3(space, address, length, value, mask_fixed=mask_fixed)
        address += length  # pages, added to an address
        npages -= length


def _set_range_since_v3(
    space: list[int], address: int, npages: int, value: int, *, mask_fixed: bool
) -> None:
    place = address & 63  # of the address, not of the page: always 0
    # A shift by 64, undefined in C, leaves the value as it is on x86.
    mask = (FULL >> (64 - npages if mask_fixed else npages % 64)) << place
    word = address // PAGE // 64
    space[word] = space[word] & ~mask | value & mask


def _copy_aligned(space: list[int], start: int, bitmap: list[int], npages: int) -> None:
    """The path all three share."""
    for k in range(_longs(npages)):
        if bitmap[k]:
            space[start // 64 + k] = bitmap[k]


def is_private(space: list[int], page: int) -> bool:
    """cpu_physical_memory_test_encrypted() of one page, in all three."""
    return space[page // 64] != 0


def clear_dirty_range(dirty: list[int], private: list[int], start: int, npages: int) -> None:
    """cpu_physical_memory_clear_dirty_range(), in all three."""
    for page in range(start, start + npages):
        dirty[page // 64] &= ~(1 << page % 64)
        private[page // 64] &= ~(1 << page % 64)


def read_for_section(kernel: int, slot: Span, section: Span) -> int:
    """kvm_sync_page_enc_bitmap(), in all three: the bits it takes for the section's pages.

    Args:
        kernel: the state of every gfn, bit g = gfn g.
        slot: where the buffer's size and the first gfn are taken from.
        section: where the number of pages, and the place to put the bits, are taken from.
    """
    if _longs(section.npages) > _longs(slot.npages):
        raise HeapOverrun
    return kernel >> slot.gfn & (1 << section.npages) - 1


def pages_asked_for(section_bytes: int, host_page_bytes: int) -> int:
    """How many gfns, of 4096 bytes each, kvm_sync_page_enc_bitmap() reads of a section."""
    return section_bytes // host_page_bytes


def sync(dirty: list[int], log: list[int], private_read: int) -> None:
    """kvm_physical_sync_dirty_bitmap(), in all three: the log is taken, then the state is read.

    Args:
        dirty: what the log is merged into.
        log: the kernel's dirty bits; they are taken.
        private_read: what KVM_GET_PAGE_ENC_BITMAP returned, -1 for a failure.
    """
    for k, word in enumerate(log):
        dirty[k] |= word
        log[k] = 0
    if private_read == -1:
        raise VmKilled


def _longs(npages: int) -> int:
    return -(-npages // 64)


class Defect(StrEnum):
    """Those that lead a page by the wrong road; numbers as in test_defects_of_2019.py."""

    B1 = "B1"  # an all-zero word is skipped
    B2 = "B2"  # the last word is written whole
    B3 = "B3"  # unaligned: a word goes to a wrong page
    B4 = "B4"  # unaligned: no shift, no mask or a wrong one
    B5 = "B5"  # one word written for each dirty-memory block
    B6 = "B6"  # a page is looked up as its whole word
    B7 = "B7"  # clearing dirtiness clears the state
    B8 = "B8"  # slot and section are mixed


class Version(StrEnum):
    """The published versions."""

    V2 = "v2"
    V3 = "v3"
    FIX = "2020"

    @property
    def defects(self) -> frozenset[Defect]:
        """What this version has; v3 no longer has the loop of B5."""
        return frozenset(Defect) - (set() if self is Version.V2 else {Defect.B5})


@dataclass(frozen=True)
class Code:
    """A version with some of its defects at work; the others are repaired, each by itself.

    With all of a version's defects it is that version (a test compares it with the functions
    above), with none it is right.
    """

    version: Version
    active: frozenset[Defect]

    @classmethod
    def of(cls, version: Version, *, repaired: AbstractSet[Defect] = frozenset()) -> Code:
        return cls(version, version.defects - repaired)

    def read(self, kernel: int, slot: Span, section: Span, tail: int) -> list[int]:
        """kvm_sync_page_enc_bitmap() up to the copy: the buffer as the kernel leaves it.

        Args:
            kernel: the state of every gfn.
            slot: the memslot.
            section: the memory region section.
            tail: the bits past the section in the last word, as a word: all ones up to 2020-02;
                since then what the buffer held, and QEMU's held zeros.
        """
        first = slot if Defect.B8 in self.active else section
        bits = read_for_section(kernel, first, section)
        nwords = _longs(section.npages)
        ones = (1 << 64 * nwords) - (1 << section.npages)
        return words_of(bits | (ones if tail else 0), nwords)

    def copy(self, space: list[int], start: int, bitmap: list[int], npages: int) -> None:
        """From the buffer into the one bitmap for all RAM."""
        if start % 64 == 0:
            self._copy_aligned(space, start // 64, bitmap, npages)
        elif self._unaligned_defects:
            self._copy_unaligned(space, start, bitmap, npages)
        else:
            _put(space, start, int.from_bytes(array("Q", bitmap).tobytes(), "little"), npages)

    def block_map(self, space: list[int], start: int, npages: int) -> int:
        """cpu_physical_memory_sync_encrypted_bitmap(): a RAMBlock's own map, bit i = its page i.

        A RAMBlock of whole words is copied word by word, and rightly; only one that begins or ends
        inside a word is looked up page by page, and so meets B6.
        """
        if Defect.B6 in self.active and (start % 64 or npages % 64):
            return sum(is_private(space, start + page) << page for page in range(npages))
        return bits_of(space, start, npages)

    def clear_dirty(self, space: list[int], start: int, npages: int) -> None:
        """cpu_physical_memory_clear_dirty_range() of a RAMBlock. QEMU calls it for resizing one."""
        if Defect.B7 in self.active:
            clear_dirty_range([0] * len(space), space, start, npages)

    def _copy_aligned(self, space: list[int], first: int, bitmap: list[int], npages: int) -> None:
        nwords = _longs(npages)
        old, new = space[first : first + nwords], bitmap[:nwords]
        if Defect.B2 not in self.active and npages % 64:
            mask = FULL >> 64 - npages % 64
            new[-1] = new[-1] & mask | old[-1] & ~mask
        if Defect.B1 in self.active:
            new = [now if read else was for now, read, was in zip(new, bitmap, old, strict=False)]
        space[first : first + nwords] = new

    @cached_property
    def _unaligned_defects(self) -> frozenset[Defect]:
        return self.active & {Defect.B3, Defect.B4, Defect.B5}

    def _copy_unaligned(self, space: list[int], start: int, bitmap: list[int], npages: int) -> None:
        misplaced = Defect.B3 in self.active
        set_range = self._set_range_wrongly if Defect.B4 in self.active else self._set_range
        for i, value in enumerate(bitmap):
            length = min(64, npages - 64 * i)
            if not misplaced:
                set_range(space, start + 64 * i, length, value)
            elif self.version is Version.V2:
                set_range(space, start + i, 1, value)
            else:  # pages, added to an address
                set_range(space, (start * PAGE + 64 * i) // PAGE, length, value)

    def _set_range_wrongly(self, space: list[int], page: int, length: int, value: int) -> None:
        """With B4: unshifted; unmasked in v2, by a wrong mask in v3, by a right one in 2020."""
        first = page // 64
        if self.version is not Version.V2:
            mask = FULL >> (64 - length if self.version is Version.FIX else length % 64)
            space[first] = space[first] & ~mask | value & mask
            return
        last = first if self._first_word_only else (page + length - 1) // 64
        space[first : last + 1] = [value] * (last + 1 - first)

    def _set_range(self, space: list[int], page: int, length: int, value: int) -> None:
        room = 64 - page % 64
        _put(space, page, value, min(length, room) if self._first_word_only else length)

    @cached_property
    def _first_word_only(self) -> bool:
        """B5. A range here is of 64 pages at most, and no dirty-memory block ends inside one."""
        return Defect.B5 in self.active


def _put(space: list[int], start: int, bits: int, npages: int) -> None:
    """Set ``npages`` bits of a list of words, and no others."""
    first, shift = divmod(start, 64)
    end = first + _longs(shift + npages)
    mask = (1 << npages) - 1
    old = int.from_bytes(array("Q", space[first:end]).tobytes(), "little")
    new = old & ~(mask << shift) | (bits & mask) << shift
    space[first:end] = words_of(new, end - first)


def words_of(bits: int, nwords: int) -> list[int]:
    """Bits as a list of words."""
    return memoryview(bits.to_bytes(nwords * 8, "little")).cast("Q").tolist()


def bits_of(space: list[int], start: int, npages: int) -> int:
    """``npages`` bits of a list of words, from bit ``start`` on."""
    words = space[start // 64 : _longs(start + npages)]
    return int.from_bytes(array("Q", words).tobytes(), "little") >> start % 64 & (1 << npages) - 1
