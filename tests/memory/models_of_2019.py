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
"""

from __future__ import annotations

from dataclasses import dataclass

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
