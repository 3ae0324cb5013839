"""Sync protocols: kvmenc's own, and the ones it was chosen over, made of the same parts.

A protocol says in which order a host asks the kernel for the two bitmaps, whether a page that was
seen to flip counts as dirty, and when the kernel's dirty bits are taken. ``HostSync`` carries one
out, on any VM; kvmenc's own is ``GuestMaps.sync`` itself.

Sources: dirty first is the code of "[PATCH v2 04/13]", 2019-07-10, Message-ID
20190710202219.25939-5-brijesh.singh@amd.com; private first was proposed in its review (David
Gilbert, 2019-07-11); clearing before reading is QEMU since 4.1 (migration/ram.c,
migration_bitmap_clear_dirty; v7.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import TYPE_CHECKING

from kvmenc.dirtysource import DirtyLogSource
from kvmenc.memory import words as kernels
from kvmenc.memory.sync import GuestMaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.kvm import Vm
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.slots import MemSlot, RamBlock
    from kvmenc.memory.sync import PrivateSource
    from kvmenc.memory.words import Words

__all__ = ["ASKED_ONCE", "OWN", "PROTOCOLS", "Clearing", "HostSync", "Protocol"]


class Clearing(StrEnum):
    """When the kernel's dirty bits are taken."""

    BY_GET = "by GET"  # without manual protect
    WHEN_MERGED = "when merged"  # manual protect; each slot's at once
    BEFORE_READING = "before reading"  # manual protect; after both syncs, before the contents
    AFTER_READING = "after reading"  # manual protect; when the contents were read


@dataclass(frozen=True, slots=True)
class Protocol:
    """How a host syncs.

    Attributes:
        private_first: the private state is read before the dirty log, not after it.
        flips_dirty: ``dirty |= private_before ^ private_now``.
        clearing: when the kernel's dirty bits are taken.
        asks_once: the private state is read at the first sync only.
    """

    private_first: bool = False
    flips_dirty: bool = True
    clearing: Clearing = Clearing.BY_GET
    asks_once: bool = False

    @property
    def name(self) -> str:
        """Words that no other protocol has."""
        order = "private, dirty" if self.private_first else "dirty, private"
        if self.asks_once:
            order = "dirty; private once"
        return f"{order}{' + flips' if self.flips_dirty else ''}; CLEAR {self.clearing}"


def _has_twin(protocol: Protocol) -> bool:
    """Private first, bits merged last: to clear them then is to clear them before reading."""
    return protocol.private_first and protocol.clearing == Clearing.BEFORE_READING


#: Those that end with the right answer wherever a host can, and that ``GuestMaps.sync`` carries
#: out: dirty, private, flips made dirty; with or without manual protect.
OWN = (Protocol(), Protocol(clearing=Clearing.WHEN_MERGED))
#: What "query the bitmap before migration" would mean if it were done only then.
ASKED_ONCE = Protocol(flips_dirty=False, asks_once=True)
#: Every combination but one that is another's twin, kvmenc's own first.
PROTOCOLS = (
    *OWN,
    *(
        protocol
        for protocol in (Protocol(*it) for it in product((False, True), (True, False), Clearing))
        if protocol not in OWN and not _has_twin(protocol)
    ),
)


class HostSync:
    """A host that syncs by a protocol; its bitmaps start all dirty, as a migration's do.

    A round is ``sync``, ``before_reading``, the contents of the dirty pages, ``after_reading``.

    Args:
        protocol: how.
        vm: whose dirty log is read; it has manual protect on, unless bits are taken by GET.
        private: where the private state is read.
        layout: its memslots and RAMBlocks.

    Attributes:
        maps: the bitmaps.
    """

    def __init__(self, protocol: Protocol, vm: Vm, private: PrivateSource, layout: Layout) -> None:
        maps = GuestMaps if protocol.flips_dirty else _FlipsUnnoted
        self.maps = maps(layout, all_dirty=True)
        self._protocol = protocol
        self._private = private
        self._asked = False
        self._log = _UnclearedLog(vm)
        manual = protocol.clearing == Clearing.WHEN_MERGED
        now = protocol.clearing in {Clearing.BY_GET, Clearing.WHEN_MERGED}
        self._dirty = DirtyLogSource(vm, manual_protect=manual) if now else self._log

    def sync(self) -> None:
        """Read both bitmaps; raises what ``GuestMaps.sync`` does."""
        if self._protocol.private_first:
            self.maps.copy_private(self._private)
            self.maps.merge_dirty(self._dirty)
        elif self._protocol.asks_once and self._asked:
            self.maps.merge_dirty(self._dirty)
        else:
            self.maps.sync(self._dirty, self._private)
        self._asked = True

    def before_reading(self) -> None:
        """To be called before the first page's contents are read."""
        if self._protocol.clearing == Clearing.BEFORE_READING:
            self._log.clear()

    def after_reading(self) -> None:
        """To be called after the last page's contents were read."""
        if self._protocol.clearing == Clearing.AFTER_READING:
            self._log.clear()


class _FlipsUnnoted(GuestMaps):
    """Bitmaps of a host that replaces states, but makes no flipped page dirty."""

    def _set_private(
        self, block: RamBlock, block_page: int, words: Words, bit: int, npages: int
    ) -> None:
        kernels.copy_bits(self.private[block.name].words, block_page, words, bit, npages)


class _UnclearedLog:
    """Reads the dirty log, manual protect on, and clears what it read only when told to."""

    name = "dirty log, cleared later"

    def __init__(self, vm: Vm) -> None:
        self._vm = vm
        self._read: list[tuple[MemSlot, Words]] = []

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's dirty words; valid until the next is asked for."""
        for slot in slots:
            words = self._vm.dirty_log(slot)
            self._read.append((slot, words.copy()))
            yield slot, words

    def clear(self) -> None:
        """Take what was read since the last time."""
        read, self._read = self._read, []
        for slot, words in read:
            self._vm.clear_dirty_log(slot, words)
