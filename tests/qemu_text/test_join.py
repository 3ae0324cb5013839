"""From texts to a layout; real texts against KVM's own word in the trace of the same run."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import InputError
from kvmenc.memory.slots import MemSlot
from kvmenc.qemu.costs import warnings_of
from kvmenc.qemu.join import MADE_UP, QemuLayout, from_mtree, from_trace
from kvmenc.qemu.mtree import parse_mtree
from kvmenc.qemu.overrides import override_of
from kvmenc.qemu.ramblock import parse_ramblock
from kvmenc.qemu.trace import parse_trace
from tests.qemu_text.texts import MACHINES, mtree, ramblock, real, trace

if TYPE_CHECKING:
    from kvmenc.qemu.text import QemuText

MIB = 1 << 20
HVA = 0x7F0000000000
RAM = ("ram", MIB, HVA)


def both(views: QemuText, blocks: QemuText) -> QemuLayout:
    return from_mtree(parse_mtree(views), parse_ramblock(blocks))


def traced(slots: QemuText, blocks: QemuText, views: QemuText | None = None) -> QemuLayout:
    parsed = parse_mtree(views) if views else None
    return from_trace(parse_trace(slots), parse_ramblock(blocks), parsed)


def pieces_of(qemu: QemuLayout) -> list[tuple[int, int, int, str, int, bool]]:
    return [
        (it.slot.as_id, it.slot.base_gfn, it.npages, it.block.name, it.block_page, it.slot.readonly)
        for slot in qemu.layout.slots
        for it in qemu.layout.pieces_of(slot)
    ]


@pytest.mark.parametrize("machine", MACHINES)
def test_slots_made_from_the_mtree_are_those_that_kvm_was_told(machine: str) -> None:
    mtree_text, blocks = real(machine, "mtree"), real(machine, "ramblock")
    by_trace = traced(real(machine, "trace"), blocks, mtree_text)
    assert pieces_of(both(mtree_text, blocks)) == pieces_of(by_trace)
    assert by_trace.ids_known


def test_ram_that_the_chipset_write_protects_is_no_rom_to_kvm() -> None:
    """The q35 was stopped with four such ranges; by its trace none is read-only."""
    slots = both(real("q35", "mtree"), real("q35", "ramblock")).layout.slots
    assert [slot.base_gfn for slot in slots if slot.readonly] == [0xFFFC0]


def test_a_new_qemu_tells_write_protected_ram_from_rom_where_nothing_else_does() -> None:
    views = mtree("0-fff rom ram KVM")
    assert not both(views, ramblock(RAM, new=True)).layout.slots[0].readonly
    assert both(views, ramblock(RAM)).layout.slots[0].readonly
    flash = mtree("0-fff romd ram KVM")
    assert both(flash, ramblock(RAM, new=True)).layout.slots[0].readonly


def test_flash_that_is_being_read_is_a_read_only_slot() -> None:
    slots = both(real("pflash", "mtree"), real("pflash", "ramblock")).layout.slots
    assert [slot.base_gfn for slot in slots if slot.readonly] == [0xFFF80, 0xFFFC0]


def test_the_trace_tells_where_blocks_lie_that_old_qemu_does_not() -> None:
    layout = traced(*(real("pc", kind) for kind in ("trace", "ramblock", "mtree")))
    addresses = {block.name: layout.host_addr(block.host_addr) for block in layout.layout.blocks}
    assert addresses["pc.ram"] == 0x7F4843E00000
    assert addresses["pc.bios"] == 0x7F4862800000
    assert addresses["pc.rom"] is None


def test_without_addresses_they_are_made_up_and_keep_the_order_of_ram_addr() -> None:
    qemu = both(real("pc", "mtree"), real("pc", "ramblock"))
    for block, line in zip(qemu.layout.blocks, parse_ramblock(real("pc", "ramblock")), strict=True):
        assert block.host_addr - MADE_UP == line.ram_addr
        assert qemu.host_addr(block.host_addr) is None


def test_addresses_that_qemu_prints_are_taken() -> None:
    qemu = both(mtree("0-fffff ram ram KVM"), ramblock(RAM, new=True))
    [slot] = qemu.layout.slots
    assert qemu.host_addr(slot.userspace_addr) == HVA


def test_only_what_qemu_marks_is_a_slot_if_it_marks_any() -> None:
    ranges = ["0-fff ram ram KVM", "1000-1fff ram ram @0000000000001000"]
    assert len(both(mtree(*ranges), ramblock(RAM)).layout.slots) == 1
    unmarked = mtree(*(it.removesuffix(" KVM") for it in ranges))
    assert len(both(unmarked, ramblock(RAM)).layout.slots) == 2


def test_smm_has_slots_of_its_own_and_an_alias_of_the_same_gfn_is_none() -> None:
    smram = ("0-9ffff ram ram KVM", "a0000-bffff ram ram @00000000000a0000 KVM")
    views = mtree("0-9ffff ram ram KVM", smram=smram)
    qemu = both(views, ramblock(RAM))
    assert [(slot.as_id, slot.base_gfn) for slot in qemu.layout.slots] == [(0, 0), (1, 0), (1, 160)]
    assert not any(it.alias for slot in qemu.layout.slots for it in qemu.layout.pieces_of(slot))


def test_a_slot_holds_whole_pages_only() -> None:
    views = mtree("800-27ff ram ram @0000000000000800", "3000-37ff ram ram @0000000000003000")
    assert pieces_of(both(views, ramblock(RAM))) == [(0, 1, 1, "ram", 1, False)]


def test_a_split_at_4_gib_and_a_hotplugged_dimm() -> None:
    views = mtree(
        "0-7fffffff ram pc.ram KVM",
        "100000000-17fffffff ram pc.ram @0000000080000000 KVM",
        "180000000-187ffffff ram dimm1 KVM",
    )
    blocks = ramblock(("pc.ram", 4096 * MIB, 0), ("dimm1", 128 * MIB, 0))
    assert pieces_of(both(views, blocks)) == [
        (0, 0, 0x80000, "pc.ram", 0, False),
        (0, 0x100000, 0x80000, "pc.ram", 0x80000, False),
        (0, 0x180000, 0x8000, "dimm1", 0, False),
    ]


@pytest.mark.parametrize(
    ("views", "blocks", "why"),
    [
        (mtree("0-fff ram x"), ramblock(RAM), "address 0x0: no RAMBlock is called 'x'"),
        (mtree("0-1fffff ram ram"), ramblock(RAM), "more than RAMBlock 'ram' holds"),
        (
            mtree("0-fff ram vram"),
            ramblock(("0/vram", 4096, 0), ("1/vram", 4096, 0)),
            "2 RAMBlocks are called 'vram'",
        ),
        (mtree("0-fff ram ram @0000000000000800"), ramblock(RAM), "is not on a page"),
    ],
)
def test_texts_that_do_not_go_together(views: QemuText, blocks: QemuText, why: str) -> None:
    with pytest.raises(InputError, match=why):
        both(views, blocks)


SLOT = f"Slot#0 flags=0x1 gpa=0x0 size=0x100000 ua={HVA:#x} ret=0"


@pytest.mark.parametrize(
    ("slots", "blocks", "views", "why"),
    [
        (trace(SLOT), ramblock(RAM), None, "no host addresses .* add --mtree"),
        (trace(SLOT), ramblock(("a", 4096, 0), new=True), None, "texts are of two QEMUs"),
        (
            trace(SLOT),
            ramblock(RAM),
            mtree("100000-100fff ram ram"),
            "gfn 0x100 is memory by the mtree, but the trace has no slot there",
        ),
        (
            trace(SLOT),
            ramblock(RAM),
            mtree("0-7ffff ram ram", "80000-fffff ram ram @0000000000080000"),
            "gfn 0x80: the trace and the mtree do not say the same",
        ),
    ],
)
def test_a_trace_that_does_not_go_with_the_rest(
    slots: QemuText, blocks: QemuText, views: QemuText | None, why: str
) -> None:
    with pytest.raises(InputError, match=why):
        traced(slots, blocks, views)


def test_memory_of_a_device_is_left_out_and_said() -> None:
    views = mtree("0-fffff ram ram KVM", "100000-100fff ramd 0000:01:00.0 BAR 0 mmaps[0] KVM")
    qemu = both(views, ramblock(RAM))
    assert len(qemu.layout.slots) == 1
    [line] = warnings_of(qemu)
    assert line.startswith("gfn 0x100: a device's own memory (0000:01:00.0 BAR 0 mmaps[0])")
    device = SLOT.replace("Slot#0", "Slot#7").replace("gpa=0x0", "gpa=0x100000")
    qemu = traced(trace(SLOT, device.replace("ua=0x7f", "ua=0x6f")), ramblock(RAM, new=True))
    [line] = warnings_of(qemu)
    assert line.startswith("slot 7, gfn 0x100: in no RAMBlock with a name")


def test_what_costs_or_cannot_be_known_is_warned_of() -> None:
    slots = trace(
        "Slot#0 flags=0x1 gpa=0x0 size=0x5000 ua=0x7f0000000000 ret=0",
        "Slot#1 flags=0x0 gpa=0x8000 size=0x5000 ua=0x7f0000008000 ret=0",
        "AddrSpace#0 Slot#2 flags=0x4 gpa=0x40000 size=0xb0000 ua=0x7f0000040000"
        " guest_memfd=9 guest_memfd_offset=0x0 ret=0",
        "Slot#3 flags=0x2 gpa=0x201000 size=0x1000 ua=0x7e0000001000 ret=0",
    )
    blocks = ramblock(RAM, ("pc.bios", 0x2000, 0x7E0000000000), new=True)
    starts = [
        "slot 2 with guest_memfd: KVM keeps no dirty log",
        "slot 1 without dirty log: what the guest writes there is not recorded until",
        "slot 1: begins at page 8 of ram, 8 past a multiple of 64",
        "the first MiB is cut into 3 slots of RAM (option ROMs, PAM registers)",
        "slot 3 read-only (ROM, flash): never in the dirty log",
        "ram: 70 of its pages lie in no slot (under ROM or a device)",
    ]
    lines = warnings_of(traced(slots, blocks))
    assert [line[: len(start)] for line, start in zip(lines, starts, strict=True)] == starts


def test_pages_that_are_seen_twice_count_once() -> None:
    views = mtree("0-7ffff ram ram KVM", "100000-17ffff ram ram KVM")
    [line] = warnings_of(both(views, ramblock(RAM)))
    assert line.startswith("ram: 128 of its pages lie in no slot")


def test_a_long_list_of_slots_is_cut_short() -> None:
    slot = "flags=0x0 gpa={0:#x}00000 size=0x100000 ua=0x7f0000{0:x}00000 ret=0"
    slots = trace(*(f"Slot#{it} {slot.format(it)}" for it in range(1, 10)))
    [line] = warnings_of(traced(slots, ramblock(("ram", 32 * MIB, HVA), new=True)))[:1]
    assert "slot 6 and 3 more without dirty log" in line


def test_without_a_trace_nothing_is_said_of_dirty_logs() -> None:
    qemu = both(mtree("0-fffff ram ram KVM"), ramblock(RAM))
    assert warnings_of(qemu) == []
    known = replace(qemu, ids_known=True)
    assert warnings_of(known) == []
    assert qemu.layout.slots == (MemSlot(0, 0, 256, MADE_UP),)


@pytest.mark.parametrize(
    ("name", "state"),
    [
        ("pc.ram", None),
        ("/objects/mem1", None),
        ("0000:00:02.0/vga.vram", "shared"),
        ("system.flash0", "private"),
        ("system.flash1", "shared"),
        ("pc.bios", "shared"),
        ("pc.rom", "shared"),
        ("isa-bios", "shared"),
        ("0000:00:03.0/e1000.rom", "shared"),
        ("/rom@etc/acpi/tables", "shared"),
    ],
)
def test_what_a_block_is_taken_for(name: str, state: str | None) -> None:
    assert override_of(name) == state
