"""The sync: both bitmaps of every memslot, read and merged into the RAMBlocks.

At every sync ``dirty |= private_before ^ private_now``: a page that flipped goes again. Without
that a page can be left sent by the wrong road: its write may be in one sync and its flip in the
next, where no dirty bit comes with it (Linux v6.12 converts a page's content first and announces
that afterwards: arch/x86/mm/mem_encrypt_amd.c, early_set_memory_enc_dec); or a dirty bit is used up
while the state is still the old one (Sean Christopherson, 2021-03-08, case 2 of
https://lore.kernel.org/r/YEaAXXGZH0uSMA3v@google.com).

With it the order of the two readings decides nothing any more; ``kvmenc.ordering`` has tried them
all (docs/order.md). It is dirty of all slots, private of all slots, and (the caller's part) page
contents: right for guests that announce before they write even without the rule. What must not be
is a dirty bit taken from the kernel after the page's content was read.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from kvmenc.errors import BitmapSizeError, InputError
from kvmenc.memory import words as kernels
from kvmenc.memory.aliases import AliasState
from kvmenc.memory.maps import DirtyMap, PrivateMap

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.memory.join import Alias
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.slots import MemSlot, RamBlock, State
    from kvmenc.memory.words import Words

__all__ = ["BlockReport", "DirtySource", "GuestMaps", "PrivateSource", "SyncReport"]


class DirtySource(Protocol):
    """Where dirty bits come from."""

    @property
    def name(self) -> str:
        """What a report calls it."""

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield every slot's dirty bits: ``words_for(slot.npages)`` words, 1 = dirty.

        The words are valid until the next item is asked for. Only then have they been merged, and
        only then may the source clear the kernel's copy of them. Bits past the slot are ignored.
        """


class PrivateSource(Protocol):
    """Where private/shared comes from."""

    @property
    def name(self) -> str:
        """What a report calls it."""

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield every slot's state: ``words_for(slot.npages)`` words, 1 = private.

        The words are valid until the next item is asked for. Bits past the slot are ignored.
        """


@dataclass(frozen=True, slots=True)
class BlockReport:
    """One RAMBlock after a sync.

    Attributes:
        block: its name.
        dirty_private_pages: dirty pages that are private.
        dirty_shared_pages: dirty pages that are shared.
        flipped_pages: pages seen to change between private and shared since the last report (a page
            that flipped to and fro between failed syncs counts each time); 0 in the first.
        disagreeing_pages: pages with several gfns of which some are private and some shared; they
            are taken for shared.
        override: what all its pages were taken for, whatever the kernel said.
    """

    block: str
    dirty_private_pages: int
    dirty_shared_pages: int
    flipped_pages: int
    disagreeing_pages: int
    override: State | None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What one sync found.

    Attributes:
        blocks: each RAMBlock, in the layout's order.
        unlogged_slots: slots without a dirty log: what the guest wrote there is not known.
    """

    blocks: tuple[BlockReport, ...]
    unlogged_slots: tuple[MemSlot, ...]

    @property
    def dirty_private_pages(self) -> int:
        """Dirty private pages of all RAMBlocks."""
        return sum(block.dirty_private_pages for block in self.blocks)

    @property
    def dirty_shared_pages(self) -> int:
        """Dirty shared pages of all RAMBlocks."""
        return sum(block.dirty_shared_pages for block in self.blocks)

    @property
    def flipped_pages(self) -> int:
        """Flipped pages of all RAMBlocks."""
        return sum(block.flipped_pages for block in self.blocks)

    @property
    def disagreeing_pages(self) -> int:
        """Disagreeing pages of all RAMBlocks."""
        return sum(block.disagreeing_pages for block in self.blocks)


class GuestMaps:
    """What is known of a guest's pages: dirty and private, one map each for every RAMBlock.

    Every page starts private, the kernel's own default, unless its RAMBlock has an override. That
    start is an assumption, not a reading; so the first sync makes every page it finds shared dirty,
    by the rule above, but reports no flips: nothing was seen to change.

    A sync that fails may be repeated. What it had merged stays merged, a state is only ever
    replaced together with its dirty bit, and flips are reported by the next sync that succeeds.

    Args:
        layout: the guest's memslots and RAMBlocks.
        all_dirty: start with every page dirty, as a migration does; else with none.

    Attributes:
        layout: as given.
        dirty: each RAMBlock's dirty pages, by name.
        private: each RAMBlock's private pages, by name.
    """

    def __init__(self, layout: Layout, *, all_dirty: bool = False) -> None:
        self.layout = layout
        start = DirtyMap.all_dirty if all_dirty else DirtyMap
        self.dirty = {block.name: start(block.npages) for block in layout.blocks}
        self.private = {
            block.name: (PrivateMap.all_shared if block.override == "shared" else PrivateMap)(
                block.npages
            )
            for block in layout.blocks
        }
        self._flips: Counter[str] = Counter()
        self._disagreeing: Counter[str] = Counter()
        self._synced = False

    def clear_dirty(self) -> None:
        """Make every page clean, as when a round has taken them all. States stay as they are."""
        for dirty in self.dirty.values():
            dirty.clear()

    def sync(self, dirty: DirtySource, private: PrivateSource) -> SyncReport:
        """Read both bitmaps of every slot, dirty first, and merge them into the RAMBlocks' maps.

        Raises:
            BitmapSizeError: a source gave a slot a bitmap of the wrong size.
            InputError: a source left a slot out.
            LayoutError: a source gave a slot that is not in the layout.
            Exception: whatever a source raises.
        """
        self.merge_dirty(dirty)
        self.copy_private(private)
        return self._report()

    def merge_dirty(self, source: DirtySource) -> None:
        """The first half of a sync; raises what ``sync`` does."""
        for slot, words in _read(source, self.layout.logged_slots):
            self._merge_dirty(slot, words)

    def copy_private(self, source: PrivateSource) -> None:
        """The second half of a sync; raises what ``sync`` does."""
        aliases: dict[Alias, AliasState] = {}
        for slot, words in _read(source, self.layout.slots):
            self._copy_private(slot, words, aliases)
        self._disagreeing.clear()
        for alias, state in aliases.items():
            self._set_private(alias.block, alias.block_page, state.every, 0, alias.npages)
            self._disagreeing[alias.block.name] += state.disagreeing_pages

    def _merge_dirty(self, slot: MemSlot, words: Words) -> None:
        for it in self.layout.pieces_of(slot):
            to = self.dirty[it.block.name].words
            kernels.or_bits(to, it.block_page, words, it.slot_page, it.npages)

    def _copy_private(self, slot: MemSlot, words: Words, aliases: dict[Alias, AliasState]) -> None:
        for it in self.layout.pieces_of(slot):
            if it.block.override:
                continue  # copying and then overriding would make a flip of every page, every time
            if it.alias:
                if it.alias not in aliases:
                    aliases[it.alias] = AliasState(it.alias)
                aliases[it.alias].add(it, words)
            else:
                self._set_private(it.block, it.block_page, words, it.slot_page, it.npages)

    def _set_private(
        self, block: RamBlock, block_page: int, words: Words, bit: int, npages: int
    ) -> None:
        state, dirty = self.private[block.name].words, self.dirty[block.name].words
        self._flips[block.name] += kernels.copy_bits_noting_changes(
            state, dirty, block_page, words, bit, npages
        )

    def _report(self) -> SyncReport:
        flips = self._flips if self._synced else Counter[str]()
        report = SyncReport(
            tuple(self._block(block, flips) for block in self.layout.blocks),
            tuple(slot for slot in self.layout.slots if not slot.log_dirty),
        )
        self._flips, self._synced = Counter(), True
        return report

    def _block(self, block: RamBlock, flips: Counter[str]) -> BlockReport:
        name = block.name
        private_pages, shared_pages = self.dirty[name].split(self.private[name])
        disagreeing = self._disagreeing[name]
        return BlockReport(
            name, private_pages, shared_pages, flips[name], disagreeing, block.override
        )


def _read(
    source: DirtySource | PrivateSource, slots: Sequence[MemSlot]
) -> Iterator[tuple[MemSlot, Words]]:
    """What a source yields, checked: every slot's bitmap, each of the slot's size."""
    missing = set(slots)
    for slot, words in source.read(slots):
        expected = kernels.words_for(slot.npages)
        if words.size != expected:
            size = kernels.WORD.itemsize
            raise BitmapSizeError(f"{source.name}: {slot}", expected * size, words.size * size)
        yield slot, words
        missing.discard(slot)
    if missing:
        left_out = ", ".join(sorted(map(str, missing)))
        raise InputError(f"{source.name}: gave no bitmap for {left_out}; a sync needs every slot")
