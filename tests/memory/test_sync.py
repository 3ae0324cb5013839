"""The sync: what one reading of both bitmaps does to the RAMBlocks' maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from kvmenc.errors import BitmapSizeError, InputError, LayoutError
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.sync import GuestMaps
from kvmenc.memory.words import ones, zeros
from tests.memory import oracle
from tests.memory.guests import PAGE
from tests.memory.sources import Breaks, Log, Prepared, Yields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.memory.words import Words

BASE = 0x7F00_0000_0000
LOW = MemSlot(0, 0, 13, BASE)
HIGH = MemSlot(1, 100, 187, BASE + 13 * PAGE)
ROM = MemSlot(2, 500, 70, BASE + 300 * PAGE, readonly=True, log_dirty=False)
RAM = RamBlock("ram", 200, BASE)
BIOS = RamBlock("bios", 70, BASE + 300 * PAGE)
PRIVATE = Prepared({0: 2**13 - 1, 1: 2**187 - 1, 2: 2**70 - 1})


def guest(*, all_dirty: bool = False) -> GuestMaps:
    return GuestMaps(Layout([LOW, HIGH, ROM], [RAM, BIOS]), all_dirty=all_dirty)


def bits(maps: GuestMaps, name: str = "ram") -> tuple[int, int]:
    return oracle.to_int(maps.dirty[name].words), oracle.to_int(maps.private[name].words)


def test_maps_start_clean_or_all_dirty_and_all_private() -> None:
    assert bits(guest()) == (0, 2**200 - 1)
    assert bits(guest(all_dirty=True)) == (2**200 - 1, 2**200 - 1)


def test_dirty_bits_of_several_syncs_add_up_until_they_are_cleared() -> None:
    maps = guest()
    maps.sync(Prepared({0: 0b101, 1: 1}), PRIVATE)
    maps.sync(Prepared({0: 0b110}), PRIVATE)
    assert bits(maps)[0] == 0b111 | 1 << 13
    maps.clear_dirty()
    assert bits(maps)[0] == 0


def test_a_state_is_replaced_at_every_sync_in_both_directions() -> None:
    maps = guest()
    for shared in (0b1111, 0b1100, 0):
        maps.sync(Prepared(), Prepared(PRIVATE.bits | {1: (2**187 - 1) ^ shared}))
        assert bits(maps)[1] == (2**200 - 1) ^ shared << 13


def test_a_flipped_page_becomes_dirty_and_is_reported() -> None:
    maps = guest()
    maps.sync(Prepared(), PRIVATE)
    there = maps.sync(Prepared(), Prepared(PRIVATE.bits | {0: 2**13 - 4}))
    assert (bits(maps)[0], there.flipped_pages, there.dirty_shared_pages) == (0b11, 2, 2)
    maps.clear_dirty()
    back = maps.sync(Prepared(), PRIVATE)
    assert (bits(maps)[0], back.flipped_pages, back.dirty_private_pages) == (0b11, 2, 2)


def test_the_first_sync_makes_shared_pages_dirty_but_reports_no_flip() -> None:
    """Nothing was seen to change: the state before was the default, not a reading."""
    maps = guest()
    report = maps.sync(Prepared(), Prepared(PRIVATE.bits | {0: 0}))
    assert (report.dirty_shared_pages, report.flipped_pages) == (13, 0)


def test_the_report_splits_dirty_pages_by_state_for_each_block_and_in_all() -> None:
    maps = guest()
    states = Prepared({0: 0b1010, 1: 2**187 - 1, 2: 0})
    maps.sync(Prepared(), states)
    maps.clear_dirty()
    report = maps.sync(Prepared({0: 0b0111, 1: 1 << 186}), states)
    ram, bios = report.blocks
    assert (ram.block, ram.dirty_private_pages, ram.dirty_shared_pages) == ("ram", 2, 2)
    assert (bios.block, bios.dirty_private_pages, bios.dirty_shared_pages) == ("bios", 0, 0)
    assert (report.dirty_private_pages, report.dirty_shared_pages) == (2, 2)


def test_a_report_is_plain_data() -> None:
    report = guest().sync(Prepared(), PRIVATE)
    assert msgspec.json.decode(msgspec.json.encode(report))["unlogged_slots"][0]["slot_id"] == 2


def test_unlogged_slots_are_listed_and_not_asked_for_dirty_bits() -> None:
    asked: list[Sequence[MemSlot]] = []

    class Asked(Prepared):
        def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
            asked.append(slots)
            return super().read(slots)

    report = guest().sync(Asked(), Asked(PRIVATE.bits))
    assert [list(slots) for slots in asked] == [[LOW, HIGH], [LOW, HIGH, ROM]]
    assert report.unlogged_slots == (ROM,)


@pytest.mark.parametrize("kernel_says", [0, 2**200 - 1])
@pytest.mark.parametrize(("override", "state"), [("private", 2**70 - 1), ("shared", 0)])
def test_an_override_beats_the_kernel_is_reported_and_never_flips(
    kernel_says: int, override: str, state: int
) -> None:
    bios = RamBlock("bios", 70, BIOS.host_addr, "private" if override == "private" else "shared")
    maps = GuestMaps(Layout([ROM], [bios]))
    for _ in range(2):
        report = maps.sync(Prepared(), Prepared({2: kernel_says & (2**128 - 1)}))
        assert bits(maps, "bios") == (0, state)
        assert (report.blocks[0].override, report.flipped_pages) == (override, 0)


def test_bits_past_a_slot_are_not_believed() -> None:
    maps = guest()
    maps.sync(Prepared({0: 2**64 - 2**13}), Prepared(PRIVATE.bits | {0: 2**64 - 1}))
    assert bits(maps) == (0, 2**200 - 1)
    maps.sync(Prepared(), Prepared(PRIVATE.bits | {1: 0, 0: 2**13 - 1}))
    assert bits(maps)[1] == 2**13 - 1


@pytest.mark.parametrize("words", [zeros(128), zeros(193)])
@pytest.mark.parametrize("faulty_source", ["dirty", "private"])
def test_a_bitmap_that_does_not_fit_its_slot_is_refused(words: Words, faulty_source: str) -> None:
    maps, faulty = guest(), Yields((LOW, zeros(13)), (HIGH, words))
    pair = (faulty, PRIVATE) if faulty_source == "dirty" else (Prepared(), faulty)
    with pytest.raises(BitmapSizeError, match="faulty: slot 1: the bitmap needs 24 bytes, got"):
        maps.sync(*pair)


def test_a_source_that_leaves_slots_out_is_refused() -> None:
    """Its pages would count as clean, or keep a state that nobody read."""
    maps = guest()
    with pytest.raises(InputError, match="faulty: gave no bitmap for slot 1; a sync needs every"):
        maps.sync(Yields((LOW, zeros(13))), PRIVATE)
    with pytest.raises(InputError, match="faulty: gave no bitmap for slot 1, slot 2;"):
        maps.sync(Prepared(), Yields((LOW, ones(13))))


def test_a_source_that_gives_a_slot_of_another_layout_is_refused() -> None:
    moved = MemSlot(0, 7, 13, BASE)
    with pytest.raises(LayoutError, match="slot 0, base gfn 0x7: not in this layout"):
        guest().sync(Yields((moved, zeros(13))), PRIVATE)


def test_the_private_bitmaps_are_read_after_the_dirty_ones_of_all_slots() -> None:
    order: list[str] = []

    class Traced(Prepared):
        def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
            for slot, words in super().read(slots):
                order.append(f"{self.name} {slot.slot_id}")
                yield slot, words

    dirty, private = Traced(), Traced(PRIVATE.bits)
    dirty.name, private.name = "dirty", "private"
    guest().sync(dirty, private)
    assert order == ["dirty 0", "dirty 1", "private 0", "private 1", "private 2"]


@pytest.mark.parametrize("after_slots", [0, 1, 2])
def test_dirty_bits_read_before_a_failure_are_neither_lost_nor_taken_twice(
    after_slots: int,
) -> None:
    maps, log = guest(), Log({0: 0b11, 1: 0b1})
    maps.sync(Prepared(), PRIVATE)
    with pytest.raises(OSError, match="broken"):
        maps.sync(Breaks(log, after_slots), PRIVATE)
    report = maps.sync(log, PRIVATE)
    assert bits(maps)[0] == 0b11 | 1 << 13
    assert report.dirty_private_pages == 3


@pytest.mark.parametrize("after_slots", [0, 1, 2, 3])
def test_flips_seen_before_a_failure_stay_dirty_and_are_reported_later(after_slots: int) -> None:
    maps, now = guest(), Prepared({0: 2**13 - 2, 1: 2**187 - 2, 2: 2**70 - 2})
    maps.sync(Prepared(), PRIVATE)
    with pytest.raises(OSError, match="broken"):
        maps.sync(Prepared(), Breaks(now, after_slots))
    report = maps.sync(Prepared(), now)
    assert bits(maps) == (1 | 1 << 13, (2**200 - 1) ^ (1 | 1 << 13))
    assert (report.flipped_pages, report.dirty_shared_pages) == (3, 3)
    assert maps.sync(Prepared(), now).flipped_pages == 0


def test_a_failed_first_sync_does_not_make_the_next_one_report_flips() -> None:
    maps, shared = guest(), Prepared()
    with pytest.raises(OSError, match="broken"):
        maps.sync(Prepared(), Breaks(shared, 1))
    assert maps.sync(Prepared(), shared).flipped_pages == 0


ALIASED = (MemSlot(0, 0, 100, BASE), MemSlot(1, 200, 20, BASE + 40 * PAGE))


def aliased() -> GuestMaps:
    return GuestMaps(Layout(ALIASED, [RamBlock("ram", 100, BASE)]))


def test_a_page_dirty_through_one_of_its_gfns_is_dirty() -> None:
    maps = aliased()
    maps.sync(Prepared({0: 1 << 41, 1: 1 << 2}), Prepared({0: 2**100 - 1, 1: 2**20 - 1}))
    assert bits(maps)[0] == 0b11 << 41


def test_a_page_is_private_only_if_all_its_gfns_are_and_disagreement_is_reported() -> None:
    """Private is also what the kernel says of a gfn that nobody announced; shared never is."""
    for low, high in ((0b1100, 0b1010), (0b1010, 0b1100)):
        maps = aliased()
        around = 2**100 - 1 & ~(0b1111 << 40)
        report = maps.sync(Prepared(), Prepared({0: around | low << 40, 1: high | 2**20 - 2**4}))
        assert bits(maps)[1] == around | 0b1000 << 40
        assert report.disagreeing_pages == 2


def test_gfns_that_disagree_do_not_make_their_page_flip_at_every_sync() -> None:
    maps, states = aliased(), Prepared({0: 2**100 - 1, 1: 0})
    maps.sync(Prepared(), states)
    maps.clear_dirty()
    report = maps.sync(Prepared(), states)
    assert (report.flipped_pages, bits(maps)[0], report.disagreeing_pages) == (0, 0, 20)
    agreed = maps.sync(Prepared(), Prepared({0: 2**100 - 1, 1: 2**20 - 1}))
    assert (agreed.flipped_pages, agreed.disagreeing_pages) == (20, 0)
    assert bits(maps) == ((2**20 - 1) << 40, 2**100 - 1)


def test_a_failure_between_two_gfns_of_a_page_leaves_its_state_alone() -> None:
    maps = aliased()
    maps.sync(Prepared(), Prepared({0: 2**100 - 1, 1: 2**20 - 1}))
    with pytest.raises(OSError, match="broken"):
        maps.sync(Prepared(), Breaks(Prepared(), 1))
    assert bits(maps)[1] == (2**20 - 1) << 40
