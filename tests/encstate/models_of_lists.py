"""Models of other people's lists of shared ranges. Wrong on purpose: NOT FOR USE outside the tests.

Instead of a bitmap, code published since 2021 keeps a list of the ranges that a guest announced as
shared; what is in none of them is private. These models do what that code does to its list, so that
a test can show a defect to be real before it shows that kvmenc does not have it. Written from the
code's behaviour, as read in these sources:

- v4: "[PATCH v4 09/14] kvm: Add support for SEV shared regions list and KVM_EXIT_HYPERCALL",
  2021-08-04, Message-ID
  fcbbd9b19ac7951f0cef8357dcbbf4f21c3c5695.1628076205.git.ashish.kalra@amd.com;
  AMDESE/qemu, branch sev_live_migration_v4_1, commit 67935c3fd5, target/i386/sev.c:
  sev_add_shared_regions_list(), sev_remove_shared_regions_list(), sev_is_gfn_in_unshared_region(),
  sev_save_outgoing_shared_regions_list(), sev_load_incoming_shared_regions_list();
  target/i386/kvm/kvm.c: kvm_handle_exit_hypercall(); include/qemu/queue.h: QTAILQ_REMOVE().
- Hygon: the same functions in openeuler-mirror/qemu, branch qemu-8.2.0, commit 84b004d84f
  (2024-10-23), changed by commit e98147762c, "target/i386: sev: Clear shared_regions_list when
  reboot CSV Guest". Avenger-285714/qemu-deepin has the same, commit f7f495f863.
- v10: the list of a kernel series of 2021-02, as ``fakekvm.encpages.SharedList`` has it.

A model never changes: an announcement gives a new one, so that a search can go on from any.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple, Protocol, Self

from fakekvm.encpages import SharedList

PAGE_SHIFT = 12
U32 = (1 << 32) - 1
MORE, END = 1, 2  # SHARED_REGION_LIST_CONT and _END

Ranges = tuple[tuple[int, int], ...]


class Announcement(NamedTuple):
    """What a guest says of gfns ``start`` to ``end - 1``."""

    start: int
    end: int
    private: bool


class Code(Protocol):
    """Somebody's record of what is shared."""

    def after(self, said: Announcement) -> Self: ...

    @property
    def ranges(self) -> Ranges: ...


def gfns_in(ranges: Ranges) -> set[int]:
    """What a lookup, sev_is_gfn_in_unshared_region(), takes for shared: all that lies in any."""
    return {gfn for start, end in ranges for gfn in range(start, end)}


class Version(StrEnum):
    """The published versions of QEMU's list."""

    V4 = "v4"
    HYGON = "Hygon"


@dataclass(frozen=True)
class QemuList:
    """The list as QEMU keeps it, ends exclusive; in the order of its nodes."""

    version: Version
    ranges: Ranges = ()

    def hypercall(self, gpa: int, npages: int, attributes: int) -> Self:
        """kvm_handle_exit_hypercall(): not bit 4, the whole word says whether it is private."""
        gfn = gpa >> PAGE_SHIFT
        return self.after(Announcement(gfn, gfn + npages, private=bool(attributes)))

    def after(self, said: Announcement) -> Self:
        change = self.without if said.private else self.including
        return replace(self, ranges=change(said.start, said.end))

    def including(self, start: int, end: int) -> Ranges:
        """sev_add_shared_regions_list().

        The first node that ends at ``start`` or later decides. If it begins no later, it is made
        longer, over whatever follows it; if it begins later, a node is put in front of it, however
        many nodes that one covers.
        """
        for place, (low, high) in enumerate(self.ranges):
            if low <= start and end <= high:
                return self.ranges
            if high < start:
                continue
            node, rest = ((low, end), place + 1) if low <= start else ((start, end), place)
            return (*self.ranges[:place], node, *self.ranges[rest:])
        return (*self.ranges, (start, end))

    def without(self, start: int, end: int) -> Ranges:
        """sev_remove_shared_regions_list().

        It stops at the first node that reaches to ``end``: in a list without overlaps none that
        follows could matter. In v4 it stops also where a node goes away whole, because
        QTAILQ_REMOVE() clears the link that its loop goes on by; Hygon took the loop that may
        remove, to mend a leak of memory.
        """
        seen: list[tuple[int, int]] = []
        for place, (low, high) in enumerate(self.ranges):
            left = _cut(low, high, start, end)
            seen += left
            if end <= high or (not left and self.version is Version.V4):
                return (*seen, *self.ranges[place + 1 :])
        return tuple(seen)

    def reset(self) -> Self:
        """kvm_arch_reset_vcpu() of the first vCPU; v4 does nothing there."""
        if self.version is Version.V4:
            return self
        return replace(self, ranges=self.without(0, (1 << 64) - 1))

    def saved(self) -> list[int]:
        """sev_save_outgoing_shared_regions_list(): all in 32 bits each."""
        words = [word for start, end in self.ranges for word in (MORE, start & U32, end & U32)]
        return [*words, END]

    def loaded(self, words: list[int]) -> tuple[Self, int]:
        """sev_load_incoming_shared_regions_list(): anything but MORE ends the list, nothing else.

        Returns:
            The list, with what came appended to what it had; and how many words were read.
        """
        stream = iter(words)
        ranges, read = list(self.ranges), 1
        while next(stream) == MORE:
            ranges.append((next(stream), next(stream)))
            read += 3
        return replace(self, ranges=tuple(ranges)), read


def _cut(low: int, high: int, start: int, end: int) -> list[tuple[int, int]]:
    """What ``start`` to ``end`` leaves of one node."""
    left, right = max(start, low), min(end, high)
    if left > right:
        return [(low, high)]
    if (left, right) == (low, high):
        return []
    if left == low:
        return [(right, high)]
    if right == high:
        return [(low, left)]
    return [(low, left), (right, high)]


@dataclass(frozen=True)
class KernelList:
    """The list of v10, kept by the kernel. Its ends are exclusive, but not to its own remove."""

    ranges: Ranges = ()

    def after(self, said: Announcement) -> Self:
        kernel = SharedList()
        kernel.ranges = list(self.ranges)
        (kernel.remove if said.private else kernel.add)(said.start, said.end)
        return replace(self, ranges=tuple(kernel.ranges))
