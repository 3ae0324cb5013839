"""The memslots that QEMU really makes, joined with its RAMBlocks, against QEMU's own word."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc import uapi
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.plan import Parameters
from tests.qemu.guest import PAGE, RAM_PAGES, Guest
from tests.qemu.machine import Machine, Place

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.qemu

#: QEMU 7.2, accel/kvm/trace-events; the number's upper half is the address space.
SLOT = re.compile(
    r"kvm_set_user_memory Slot#(\d+) flags=(0x\w+) gpa=(0x\w+) size=(0x\w+) ua=(0x\w+) ret=0"
)
#: RAM and ROM in `info mtree -f`: gpa, RAMBlock, and the offset in it unless 0.
REGION = re.compile(r"^ +(\w{16})-\w{16} \(prio \d+, r[ao]m\): (\S+)(?: @(\w+))?", re.MULTILINE)


@pytest.fixture(params=["pc", "q35"])
def qemu(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "vm", Guest(1), request.param) as machine:
        yield machine


@pytest.fixture
def layout(qemu: Machine, tmp_path: Path) -> Layout:
    return Layout(slots_of(qemu, tmp_path / "log"), blocks_of(qemu))


def slots_of(qemu: Machine, log: Path) -> list[MemSlot]:
    """QEMU sets each slot anew when its dirty logging starts, as a migration makes it do."""
    qemu.trace_to(log, "kvm_set_user_memory")
    qemu.migrate(Parameters())
    slots = [slot_of(*numbers) for numbers in SLOT.findall(log.read_text())]
    return [slot for slot in slots if slot.log_dirty]


def slot_of(number: str, flags: str, gpa: str, size: str, address: str) -> MemSlot:
    return MemSlot(
        slot_id=int(number) & 0xFFFF,
        base_gfn=int(gpa, 16) // PAGE,
        npages=int(size, 16) // PAGE,
        userspace_addr=int(address, 16),
        as_id=int(number) >> 16,
        readonly=bool(int(flags, 16) & uapi.KVM_MEM_READONLY),
        log_dirty=bool(int(flags, 16) & uapi.KVM_MEM_LOG_DIRTY_PAGES),
    )


def blocks_of(qemu: Machine) -> list[RamBlock]:
    """The RAMBlocks; where they lie comes from gpa2hva, not from the slots."""
    host_addrs = {}
    for gpa, name, offset in REGION.findall(qemu.monitor("info mtree -f")):
        place = qemu.find(int(gpa, 16))
        assert place is not None
        host_addrs[name] = place.host_addr - int(offset or "0", 16)
    return [RamBlock(name, npages, host_addrs[name]) for name, npages in qemu.block_pages().items()]


def test_every_slot_joins_and_each_end_lies_where_qemu_says(qemu: Machine, layout: Layout) -> None:
    gfns = np.array([gfn for slot in layout.slots for gfn in (slot.base_gfn, slot.end_gfn - 1)])
    slots, pages = layout.find(gfns)
    places = []
    for index, page in zip(slots, pages, strict=True):
        blocks, offsets = layout.locate(layout.slots[index], np.array([page]))
        block = layout.blocks[blocks[0]]
        places.append(Place(block.name, block.host_addr + int(offsets[0]) * PAGE))
    assert places == [qemu.find(int(gfn) * PAGE) for gfn in gfns]


def test_where_qemu_has_no_memory_is_no_slot(qemu: Machine, layout: Layout) -> None:
    assert qemu.find(RAM_PAGES * PAGE) is None
    slots, _ = layout.find(np.array([RAM_PAGES]))
    assert slots.tolist() == [-1]


def test_a_slot_starts_within_a_word_of_its_block(layout: Layout) -> None:
    """RAM under the last 64 KiB of option ROM space is a slot of its own: 224 % 64 = 32."""
    [slot] = [slot for slot in layout.slots if slot.base_gfn == 0xE0]
    [piece] = layout.pieces_of(slot)
    assert (piece.block.name, piece.block_page, piece.npages) == ("pc.ram", 0xE0, 0x10)
    assert piece.block_page % 64 == 32


def test_the_bios_is_seen_at_two_gfns(layout: Layout) -> None:
    pieces = [piece for slot in layout.slots for piece in layout.pieces_of(slot)]
    aliased = [(piece.block.name, piece.slot.base_gfn) for piece in pieces if piece.alias]
    assert aliased == [("pc.bios", 0xF0), ("pc.bios", 0xFFFF0)]


def test_ram_under_rom_is_migrated_but_lies_in_no_slot(layout: Layout) -> None:
    """Option ROMs hide 32 pages of pc.ram, the BIOS 16."""
    unlogged = {block.name: layout.unlogged_pages(block) for block in layout.blocks}
    assert unlogged == {"pc.ram": 48, "pc.rom": 0, "pc.bios": 0}
