"""Whole syncs of random guests against sets of pages.

Slots and RAMBlocks start anywhere, leave holes, overlap as aliases and lie in two address spaces;
bits past a slot are garbage; guests flip pages from sync to sync; sources fail in between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.memory.layout import Layout
from kvmenc.memory.sync import GuestMaps
from tests.memory import oracle
from tests.memory.guests import Guest, guests
from tests.memory.sources import Breaks, Prepared

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kvmenc.memory.slots import MemSlot
    from kvmenc.memory.sync import BlockReport

Page = tuple[str, int]


class Model:
    """The guest as sets of (RAMBlock name, page)."""

    def __init__(self, guest: Guest) -> None:
        self.guest = guest
        self.gfns = guest.gfns_of_pages()
        self.override = {block.name: block.override for block in guest.blocks}
        pages = {(block.name, page) for block in guest.blocks for page in range(block.npages)}
        self.private = {page for page in pages if self.override[page[0]] != "shared"}
        self.dirty: set[Page] = set()
        self.flipped = self.disagreeing = 0

    def sync(self, dirty: dict[int, int], private_gfns: set[int]) -> None:
        self.dirty |= set(self._written(dirty))
        before = set(self.private)
        self.disagreeing = 0
        for page, gfns in self.gfns.items():
            if self.override[page[0]] is None:
                self._settle(page, {gfn in private_gfns for gfn in gfns})
        self.flipped = len(before ^ self.private)
        self.dirty |= before ^ self.private

    def _settle(self, page: Page, says: set[bool]) -> None:
        self.disagreeing += len(says) > 1
        if says == {True}:
            self.private.add(page)
        else:
            self.private.discard(page)

    def _written(self, dirty: dict[int, int]) -> Iterable[Page]:
        for slot in self.guest.slots:
            for page in range(slot.npages) if slot.log_dirty else ():
                if dirty[slot.key] >> page & 1:
                    block, block_page = self.guest.place(slot, page)
                    yield block.name, block_page

    def bits_of(self, slot: MemSlot, private_gfns: set[int], garbage: int) -> int:
        bits = sum(1 << page for page in range(slot.npages) if slot.base_gfn + page in private_gfns)
        return bits | garbage << slot.npages & (1 << -(-slot.npages // 64) * 64) - 1


def pages_of(maps: dict[str, int]) -> set[Page]:
    return {
        (name, page)
        for name, bits in maps.items()
        for page in range(bits.bit_length())
        if bits >> page & 1
    }


def found(guest_maps: GuestMaps) -> tuple[set[Page], set[Page]]:
    dirty = {name: oracle.to_int(it.words) for name, it in guest_maps.dirty.items()}
    private = {name: oracle.to_int(it.words) for name, it in guest_maps.private.items()}
    return pages_of(dirty), pages_of(private)


def counts(model: Model, name: str) -> tuple[int, int]:
    dirty = {page for page in model.dirty if page[0] == name}
    return len(dirty & model.private), len(dirty - model.private)


def split(report: BlockReport) -> tuple[int, int]:
    return report.dirty_private_pages, report.dirty_shared_pages


@given(guests(), st.data())
def test_syncs_of_random_guests_agree_with_sets_of_pages(guest: Guest, data: st.DataObject) -> None:
    maps, model = GuestMaps(Layout(guest.slots, guest.blocks)), Model(guest)
    last_gfn = max(slot.end_gfn for slot in guest.slots)
    words = {slot.key: -(-slot.npages // 64) * 64 for slot in guest.slots}
    for number in range(data.draw(st.integers(1, 4))):
        dirty = {key: data.draw(st.integers(0, (1 << size) - 1)) for key, size in words.items()}
        private = oracle.mask(0, last_gfn) & data.draw(st.integers(0, (1 << last_gfn) - 1))
        private_gfns = {gfn for gfn in range(last_gfn) if private >> gfn & 1}
        garbage = data.draw(st.integers(0, 2**64 - 1))
        states = Prepared({s.key: model.bits_of(s, private_gfns, garbage) for s in guest.slots})
        if data.draw(st.booleans()):
            with pytest.raises(OSError, match="broken"):
                maps.sync(Prepared(), Breaks(states, data.draw(st.integers(0, len(guest.slots)))))
        report = maps.sync(Prepared(dirty), states)
        model.sync(dirty, private_gfns)
        assert found(maps) == (model.dirty, model.private)
        assert [split(block) for block in report.blocks] == [
            counts(model, block.name) for block in guest.blocks
        ]
        assert report.flipped_pages == (model.flipped if number else 0)
        assert report.disagreeing_pages == model.disagreeing
        if data.draw(st.booleans()):
            maps.clear_dirty()
            model.dirty.clear()
