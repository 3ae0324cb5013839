"""The three texts, line by line; whatever else they hold is one clear error."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.errors import InputError
from kvmenc.memory.slots import MemSlot
from kvmenc.qemu import mtree as mtree_module
from kvmenc.qemu import text as text_module
from kvmenc.qemu.mtree import Range, find_view, parse_mtree
from kvmenc.qemu.ramblock import BlockLine, parse_ramblock
from kvmenc.qemu.text import QemuText, read_text
from kvmenc.qemu.trace import TracedSlot, parse_trace
from tests.qemu_text.texts import KINDS, MACHINES, mtree, path_of, ramblock, real, trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PARSERS: dict[str, Callable[[QemuText], object]] = {
    "mtree": parse_mtree,
    "ramblock": parse_ramblock,
    "trace": parse_trace,
}
SLOT = "Slot#0 flags=0x0 gpa=0x0 size=0x1000 ua=0x7f0000000000 ret=0"


def test_ranges_of_a_real_q35() -> None:
    view = find_view(parse_mtree(real("q35", "mtree")), "memory")
    assert view is not None
    assert "cpu-memory-0" in view.address_spaces
    memory = [it for it in view.ranges if it.kind != "i/o"]
    assert memory[0] == Range(0, 0xA0000, "ram", "pc.ram", 0, in_kvm=True)
    assert memory[1] == Range(0xC0000, 0xCB000, "rom", "pc.ram", 0xC0000, in_kvm=True)
    assert memory[-1] == Range(0x180000000, 0x188000000, "ram", "mem1", 0, in_kvm=True)
    vga = Range(0xFEBF0420, 0xFEBF0500, "i/o", "vga.mmio", 0x420, in_kvm=False)
    pc_view = find_view(parse_mtree(real("pc", "mtree")), "memory")
    assert pc_view is not None
    assert vga in pc_view.ranges


def test_an_address_space_without_a_flatview_is_there_and_empty() -> None:
    view = find_view(parse_mtree(real("q35", "mtree")), "ICH9-SMB")
    assert view is not None
    assert view.ranges == []


def test_names_with_spaces_and_nonvolatile_memory() -> None:
    text = mtree("0-fff nv-ram my ram", "1000-1fff i/o 0000:00 x y @0000000000000010")
    view = find_view(parse_mtree(text), "memory")
    assert view is not None
    assert [it.name for it in view.ranges] == ["my ram", "0000:00 x y"]
    assert [it.kind for it in view.ranges] == ["ram", "i/o"]


def test_a_container_is_where_nothing_answers() -> None:
    text = mtree("0-fff ram my ram", "1000-1fff container io @0000000000001000")
    view = find_view(parse_mtree(text), "memory")
    assert view is not None
    assert view.ranges[1] == Range(0x1000, 0x2000, "i/o", "io", 0x1000, in_kvm=False)


def test_blocks_of_a_real_pc() -> None:
    blocks = parse_ramblock(real("pc", "ramblock"))
    assert len(blocks) == 9
    assert blocks[0] == BlockLine("pc.ram", 0, 0x10000000)
    assert blocks[2] == BlockLine("/rom@etc/acpi/tables", 0x11100000, 0x20000)
    assert blocks[2].npages == 32


def test_a_new_qemu_tells_addresses_and_access_and_a_block_without_name_is_passed_over() -> None:
    text = ramblock(("a b", 0x2000, 0x7F0000000000), ("", 0x1000, 0x7F0000100000), new=True)
    assert parse_ramblock(text) == [BlockLine("a b", 0, 0x2000, 0x7F0000000000, readonly=False)]


def test_the_last_state_of_each_slot_counts() -> None:
    other = SLOT.replace("Slot#0", "Slot#65539").replace("flags=0x0", "flags=0x3")
    found = parse_trace(
        trace(
            SLOT.replace("gpa=0x0", "gpa=0x5000"),
            SLOT.replace("Slot#0", "Slot#1"),
            SLOT,
            SLOT.replace("Slot#0", "Slot#1").replace("size=0x1000", "size=0x0"),
            other,
            SLOT.replace("gpa=0x0", "gpa=0x9000").replace("ret=0", "ret=-17"),
        )
    )
    assert found == [
        TracedSlot(MemSlot(0, 0, 1, 0x7F0000000000, log_dirty=False), guest_memfd=False),
        TracedSlot(
            MemSlot(3, 0, 1, 0x7F0000000000, as_id=1, readonly=True, log_dirty=True),
            guest_memfd=False,
        ),
    ]


def test_the_newer_event_tells_the_address_space_apart_and_the_guest_memfd() -> None:
    tail = " guest_memfd=12 guest_memfd_offset=0x0 ret=0"
    text = trace("AddrSpace#1 " + SLOT.replace("flags=0x0", "flags=0x4").replace(" ret=0", tail))
    [it] = parse_trace(text)
    assert (it.slot.as_id, it.slot.slot_id, it.guest_memfd) == (1, 0, True)


def test_other_lines_of_a_log_and_prompts_are_passed_over() -> None:
    log = f"qemu: warning: x\n12@1.5:kvm_set_user_memory {SLOT}\r\nkvm_run_exit cpu_index 0\n"
    assert len(parse_trace(QemuText("log", log))) == 1
    prompted = f"(qemu) info ramblock\n{real('pc', 'ramblock').content}(qemu) "
    assert len(parse_ramblock(QemuText("pasted", prompted.replace("\n", "\r\n")))) == 9


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (mtree("1000-fff ram x"), "mtree.txt, line 4: a range ends before it starts"),
        (mtree("0-fff ram x", "0-fff ram y"), "mtree.txt, line 5: a range overlaps the one before"),
        (QemuText("m", "address-space: memory\n"), "m, line 1: not the output of `info mtree -f`"),
        (QemuText("m", "FlatView #0\n what\n"), "m, line 2: no line of .*; cut off.*'what'"),
        (QemuText("m", 'FlatView #0\n AS "I/O", root: io\n'), 'm: no FlatView of .* "memory"'),
        (QemuText("m", ""), "m: no FlatView"),
        (QemuText("m", "FlatView #0"), "m, line 1: cut off, there is no newline"),
        (QemuText("m", "x" * 5000), "m, line 1: longer than 4096 characters"),
    ],
)
def test_a_wrong_mtree_is_one_line_with_its_place(text: QemuText, why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse_mtree(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (QemuText("r", ""), "r, line 1: not the output of `info ramblock`"),
        (ramblock(), "ramblock.txt: no RAMBlock in it"),
        (ramblock(("a", 0x1000, 0), ("a", 0x1000, 0)), "ramblock.txt, line 3: a second RAMBlock"),
        (ramblock(("a", 0x800, 0)), "line 2: sizes and addresses must be whole pages"),
        (ramblock(("a", 1 << 53, 0)), "line 2: larger than any machine's memory"),
        (ramblock(("a", 4096, 1 << 62), new=True), "line 2: larger than any machine's memory"),
        (ramblock(("a\x1b[2J", 4096, 0)), "line 2: no name that QEMU gives"),
        (ramblock(("a" * 256, 4096, 0)), "line 2: no name that QEMU gives"),
    ],
)
def test_a_wrong_ramblock_is_one_line_with_its_place(text: QemuText, why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse_ramblock(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (QemuText("t", "nothing\n"), "t: no kvm_set_user_memory in it; start QEMU with -trace"),
        (trace(SLOT, SLOT[:-1]), "trace.txt, line 2: no kvm_set_user_memory that is known"),
        (trace(SLOT.replace("gpa=0x0", "gpa=0x10")), "line 1: a slot is whole pages"),
        (trace("AddrSpace#65536 " + SLOT), "line 1: no slot that KVM would take"),
        (trace(SLOT.replace("gpa=0x0", "gpa=0xffffffffffff0000")), "line 1: no slot that KVM"),
        (trace(SLOT.replace("ua=0x7f", "ua=0xffff7f")), "line 1: no slot that KVM"),
    ],
)
def test_a_wrong_trace_is_one_line_with_its_place(text: QemuText, why: str) -> None:
    with pytest.raises(InputError, match=why):
        parse_trace(text)


def test_more_ranges_than_kvm_takes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mtree_module, "MAX_RANGES", 1)
    with pytest.raises(InputError, match="line 5: more than 1 ranges in a FlatView"):
        parse_mtree(mtree("0-fff ram a", "1000-1fff ram b"))


def test_files_that_are_no_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    with pytest.raises(InputError, match="file: No such file"):
        read_text(file)
    file.write_bytes(b"a\n\xff\n")
    with pytest.raises(InputError, match="file, line 2: not text"):
        read_text(file)
    monkeypatch.setattr(text_module, "MAX_TEXT_BYTES", 3)
    with pytest.raises(InputError, match="file: larger than 0 MiB"):
        read_text(file)


@given(st.sampled_from(MACHINES), st.sampled_from(KINDS), st.data())
def test_text_cut_off_within_a_line_is_refused(
    machine: str, kind: str, data: st.DataObject
) -> None:
    text = path_of(machine, kind).read_text()
    within = [at for at in range(1, len(text)) if text[at - 1] not in "\n "]
    assert _error(kind, text[: data.draw(st.sampled_from(within))])


@given(st.sampled_from(MACHINES), st.sampled_from(KINDS), st.data())
def test_a_damaged_text_is_at_worst_one_line_of_error(
    machine: str, kind: str, data: st.DataObject
) -> None:
    text = path_of(machine, kind).read_text()
    at = data.draw(st.integers(0, len(text) - 1))
    length = data.draw(st.integers(0, 20))
    junk = data.draw(st.text(max_size=10) | st.text("0123456789abcdefx \n@#-", max_size=20))
    error = _error(kind, text[:at] + junk + text[at + length :])
    assert not error or re.match(r"some\.txt(, line \d+)?: .{1,230}$", error)


def _error(kind: str, content: str) -> str:
    try:
        PARSERS[kind](QemuText("some.txt", content))
    except InputError as error:
        return str(error)
    return ""
