"""The published bitmap code on whole guests: each version sends pages the wrong road, kvmenc none.

The guests are three real layouts of QEMU's q35, a small one for each defect, and generated ones.
docs/audit-2019.md shows what is found here; its tables are compared with it, number by number.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.qemu.join import from_mtree
from kvmenc.qemu.mtree import parse_mtree
from kvmenc.qemu.ramblock import parse_ramblock
from tests.memory import audit_of_2019 as audit
from tests.memory import models_of_2019 as old
from tests.memory import oracle
from tests.memory.models_of_2019 import FULL, PAGE, Code, Defect, Span, Version
from tests.qemu_text.texts import real

PAGE_OF_DOCS = Path(__file__).parents[2] / "docs" / "audit-2019.md"
BASE = 0x7F00_0000_0000
OLD_COPIES = {Version.V2: old.copy_v2, Version.V3: old.copy_v3, Version.FIX: old.copy_2020}

versions = st.sampled_from(list(Version))
tails = st.sampled_from(list(audit.KERNELS.values()))

# Linux's bounce buffer of 64 MiB, and single pages and small rings; then, after a restart of the
# guest in the middle of the migration, the same but for one ring, which lies elsewhere.
SHARED = {
    "pc.ram": ((0x33000, 0x4000), (0x9B, 1), (0xCC, 1), (0xEA, 2)),
    "mem1": ((32, 16),),
}
RING, LATER_RING = (0x30011, 3), (0x30051, 3)


@cache
def q35(name: str) -> audit.Guest:
    """A recorded q35; its guest is up, then restarted, and comes up again."""
    lines = parse_ramblock(real(name, "ramblock"))
    layout = from_mtree(parse_mtree(real(name, "mtree")), lines).layout
    ram_page = {line.name: line.ram_addr // PAGE for line in lines}
    pc_ram = SHARED["pc.ram"]
    steps = (
        audit.Sync(state(layout, {**SHARED, "pc.ram": (*pc_ram, RING)})),
        audit.Sync(state(layout, {})),
        audit.Clear("/rom@etc/acpi/tables"),  # QEMU may resize it when the guest restarts
        audit.Sync(state(layout, {**SHARED, "pc.ram": (*pc_ram, LATER_RING)})),
    )
    copied, roms = without_overrides(layout)
    return audit.Guest(copied, ram_page, audit.sections_of(copied, ram_page), steps, roms)


def without_overrides(layout: Layout) -> tuple[Layout, frozenset[str]]:
    """So that kvmenc copies the state of video memory and flash too; only ROM keeps its own."""
    overridden = {it.name for it in layout.blocks if it.override}
    roms = {it for it in overridden if "flash" not in it and "vga.vram" not in it}
    blocks = [it if it.name in roms else replace(it, override=None) for it in layout.blocks]
    return Layout(layout.slots, blocks), frozenset(roms)


def state(layout: Layout, shared: dict[str, tuple[tuple[int, int], ...]]) -> int:
    """Every gfn private but for these pages, and those of RAMBlocks that are always shared."""
    everything = {it.name: ((0, it.npages),) for it in layout.blocks if it.override == "shared"}
    private = oracle.mask(0, max(slot.end_gfn for slot in layout.slots))
    for slot in layout.slots:
        for it in layout.pieces_of(slot):
            pages = 0
            for start, npages in (shared | everything).get(it.block.name, ()):
                pages |= oracle.mask(start, npages)
            gfn = slot.base_gfn + it.slot_page
            private &= ~oracle.moved(pages, it.block_page, gfn, it.npages)
    return private


Q35 = {
    "SeaBIOS": "q35",
    "OVMF": "q35-ovmf",
    "RAM from 0xe0000": "q35-e0000",
}


def real_guests() -> dict[str, audit.Guest]:
    return {name: q35(files) for name, files in Q35.items()}


# Pages sent raw, pages sent through the firmware: a pair for each of audit.ROWS.
COUNTS = {
    "SeaBIOS": [(0, 16387), (0, 16387), (0, 16387), (46, 16385), (36, 16385)],
    "OVMF": [(0, 16436), (0, 16436), (0, 16436), (0, 16384), (0, 16384)],
    "RAM from 0xe0000": [(241661, 6), (245437, 6), (245437, 6), (245437, 2), (245437, 2)],
}


@pytest.mark.parametrize("name", Q35)
def test_on_a_real_q35_every_version_has_pages_on_the_wrong_road(name: str) -> None:
    guest = q35(Q35[name])
    found = [
        audit.finding(guest, version, audit.KERNELS[tail]).roads.counts
        for version, tail in audit.ROWS
    ]
    assert found == COUNTS[name]


@pytest.mark.parametrize("tail", audit.KERNELS.values(), ids=audit.KERNELS)
@pytest.mark.parametrize("name", Q35)
def test_on_a_real_q35_kvmenc_has_none(name: str, tail: int) -> None:
    guest = q35(Q35[name])
    assert audit.by_kvmenc(guest, tail).counts == (0, 0)
    assert audit.by_model(guest, Code(Version.V2, frozenset()), tail).counts == (0, 0)


def test_the_recorded_fragment_at_0xe0000_begins_inside_a_word() -> None:
    [fragment] = [it for it in q35("q35-e0000").sections if it.span.gfn == 0xE0]
    pc_ram = q35("q35-e0000").ram_page["pc.ram"]
    assert (fragment.page - pc_ram, fragment.page % 64, fragment.span.npages) == (224, 32, 0x3FF20)


def test_that_one_fragment_costs_nearly_all_of_the_guest() -> None:
    """v2 puts word i at page 224 + i; 4,093 words end in that of page 4,316, the rest is unwritten.

    Unwritten is shared, as QEMU's bitmap begins.
    """
    guest = q35("q35-e0000")
    raw = audit.finding(guest, Version.V2, FULL).roads.private_raw["pc.ram"]
    assert raw >> 4352 == guest.truth["pc.ram"] >> 4352
    assert (raw >> 4352).bit_count() == 262_144 - 4352 - 0x4000 - 3


def test_a_buffer_that_is_shared_again_stays_private_for_b1() -> None:
    """No zero word is written, so nothing undoes what the sync of the restarted guest set."""
    for name in ("q35", "q35-ovmf"):
        firmware = audit.finding(q35(name), Version.FIX, 0).roads.shared_through_firmware
        assert firmware["pc.ram"] >> 0x33000 & oracle.mask(0, 0x4000) == oracle.mask(0, 0x4000)


def test_flash_of_no_whole_words_is_where_b6_meets_a_q35() -> None:
    """OVMF's variables are 132 pages; past their end are a 2019 kernel's ones, in the same word."""
    firmware = audit.finding(q35("q35-ovmf"), Version.V3, FULL).roads.shared_through_firmware
    assert firmware["system.flash1"] == oracle.mask(128, 4)
    assert audit.finding(q35("q35-ovmf"), Version.V3, 0).roads.pages["system.flash1"] == 0


def test_what_b2_wrote_into_video_memory_stays_for_b1() -> None:
    """Its first 16 pages are shown at 0xa0000 as well; the whole is synced later, all zeros."""
    firmware = audit.finding(q35("q35-ovmf"), Version.FIX, FULL).roads.shared_through_firmware
    assert firmware["0000:00:01.0/vga.vram"] == oracle.mask(16, 48)


def small(
    npages: int, slots: list[tuple[int, int, int]], *steps: audit.Sync | audit.Clear
) -> audit.Guest:
    """One RAMBlock ``ram``; its slots, and a section each, as (gfn, page, npages)."""
    ram = RamBlock("ram", npages, BASE)
    layout = Layout(
        [MemSlot(i, gfn, n, BASE + page * PAGE) for i, (gfn, page, n) in enumerate(slots)], [ram]
    )
    return audit.Guest(layout, {"ram": 0}, audit.sections_of(layout, {"ram": 0}), steps)


def with_section_inside() -> audit.Guest:
    whole, head, rest = Span(100, 8), Span(100, 3), Span(103, 5)
    guest = small(8, [(100, 0, 8)], audit.Sync(0b10110 << 100))
    sections = [audit.Section(whole, head, 0), audit.Section(whole, rest, 3)]
    return audit.Guest(guest.layout, guest.ram_page, sections, guest.steps)


mask = oracle.mask
# A guest, and which pages are wrong with the one defect of v2 alone (kernel: ones past the end).
EXAMPLES = {
    Defect.B1: (
        "128 pages, all private; then pages 0 to 63 are shared",
        small(128, [(0, 0, 128)], audit.Sync(mask(0, 128)), audit.Sync(mask(64, 64))),
        (0, mask(0, 64)),
    ),
    Defect.B2: (
        "a slot at pages 0 to 69, private; pages 70 to 127, shared, are at a lower gfn",
        small(128, [(100, 0, 70), (0, 70, 58)], audit.Sync(mask(100, 70))),
        (0, mask(70, 58)),
    ),
    Defect.B3: (
        "256 pages from page 224 on, all private",
        small(480, [(0xE0, 224, 256)], audit.Sync(mask(0xE0, 256))),
        (mask(228, 252), 0),
    ),
    Defect.B4: (
        "a slot of 64 pages from page 224 on, the first 32 private; 192 to 223 are shared",
        small(288, [(0xC0, 192, 32), (0xE0, 224, 64)], audit.Sync(mask(0xE0, 32))),
        (mask(224, 32), mask(192, 32) | mask(256, 32)),
    ),
    Defect.B5: (
        "as for B3",
        small(480, [(0xE0, 224, 256)], audit.Sync(mask(0xE0, 256))),
        (sum(mask(256 + 64 * i, 32) for i in range(4)) & mask(0, 480), 0),
    ),
    Defect.B6: (
        "a RAMBlock of 70 pages, private but for page 5",
        small(70, [(0, 0, 70)], audit.Sync(mask(0, 70) ^ 1 << 5)),
        (0, 1 << 5),
    ),
    Defect.B7: (
        "four private pages; their dirtiness is cleared after the sync",
        small(4, [(0, 0, 4)], audit.Sync(mask(0, 4)), audit.Clear("ram")),
        (mask(0, 4), 0),
    ),
    Defect.B8: (
        "a slot of 8 pages, of which 1, 2 and 4 are private; a section begins at its page 3",
        with_section_inside(),
        (0, 1 << 5 | 1 << 7),
    ),
}


@pytest.mark.parametrize("defect", Defect)
def test_each_defect_by_itself_sends_pages_the_wrong_road(defect: Defect) -> None:
    _, guest, wrong = EXAMPLES[defect]
    roads = audit.by_model(guest, Code(Version.V2, frozenset({defect})), FULL)
    assert (roads.private_raw["ram"], roads.shared_through_firmware["ram"]) == wrong
    assert audit.by_model(guest, Code(Version.V2, frozenset()), FULL).counts == (0, 0)
    assert audit.by_kvmenc(guest, FULL).counts == (0, 0)


def test_what_b7_cleared_the_next_sync_reads_again() -> None:
    before = EXAMPLES[Defect.B7][1]
    after = small(4, [(0, 0, 4)], *before.steps, audit.Sync(mask(0, 4)))
    assert audit.by_model(after, Code(Version.V2, frozenset({Defect.B7})), FULL).counts == (0, 0)


def test_b6_spares_a_ramblock_of_whole_words() -> None:
    guest = small(128, [(0, 0, 128)], audit.Sync(mask(0, 128) ^ 1 << 5))
    assert audit.by_model(guest, Code(Version.V2, frozenset({Defect.B6})), FULL).counts == (0, 0)


@given(versions, st.integers(0, 130), st.integers(1, 400), st.randoms(use_true_random=False))
def test_a_model_with_all_its_defects_is_that_version(
    version: Version, start: int, npages: int, random: Random
) -> None:
    before = [random.getrandbits(64) for _ in range(10)]
    bitmap = [random.choice([0, random.getrandbits(64)]) for _ in range(-(-npages // 64))]
    theirs, model = list(before), list(before)
    OLD_COPIES[version](theirs, start, bitmap, npages)
    Code.of(version).copy(model, start, bitmap, npages)
    assert model == theirs


@given(versions, st.integers(0, 130), st.integers(1, 400), st.randoms(use_true_random=False))
def test_a_model_without_a_defect_copies_as_the_oracle_does(
    version: Version, start: int, npages: int, random: Random
) -> None:
    before, bitmap = random.getrandbits(640), random.getrandbits(448)
    space = old.words_of(before, 10)
    Code(version, frozenset()).copy(
        space, start, old.words_of(bitmap, 7)[: -(-npages // 64)], npages
    )
    assert old.bits_of(space, 0, 640) == oracle.copied(before, start, bitmap, 0, npages)


def generated(random: Random) -> audit.Guest:
    """RAMBlocks of any size, side by side or, as QEMU places them, on words.

    Slots show parts of them, in any order, with holes, and cross from one to the next where they
    lie side by side; some are synced as two sections. A page has one gfn at most.
    """
    tight, page = random.randrange(2) == 1, random.randrange(0, 100)
    blocks, ram_page = [], {}
    for number in range(random.randrange(1, 4)):
        page = page if tight else -(-page // 64) * 64
        address = BASE + (page if tight else page + number) * PAGE
        block = RamBlock(f"block{number}", random.randrange(1, 300), address)
        blocks.append(block)
        ram_page[block.name] = page
        page += block.npages
    layout = Layout(_slots(random, blocks), blocks)
    whole = audit.sections_of(layout, ram_page)
    sections = [part for section in whole for part in _parts(random, section)]
    return audit.Guest(layout, ram_page, sections, _steps(random, layout))


def _slots(random: Random, blocks: list[RamBlock]) -> list[MemSlot]:
    runs = [(random.getrandbits(16), *run) for run in _runs(random, blocks)]
    slots, gfn = [], 0
    for number, (_, address, npages) in enumerate(sorted(runs)):
        gfn += random.randrange(0, 70)
        slots.append(MemSlot(number, gfn, npages, address))
        gfn += npages
    return slots


def _runs(random: Random, blocks: list[RamBlock]) -> list[tuple[int, int]]:
    """Parts of the RAMBlocks, a fifth of them left out: address and pages."""
    runs: list[tuple[int, int]] = []
    for address, size in _areas(blocks):
        start = 0
        while start < size:
            npages = min(random.randrange(1, 200), size - start)
            if not runs or random.randrange(5):
                runs.append((address + start * PAGE, npages))
            start += npages
    return runs


def _areas(blocks: list[RamBlock]) -> list[tuple[int, int]]:
    """RAMBlocks that lie side by side, taken together: address and pages."""
    areas: list[tuple[int, int]] = []
    for block in blocks:
        address, npages = areas[-1] if areas else (0, 0)
        if address + npages * PAGE == block.host_addr:
            areas[-1] = (address, npages + block.npages)
        else:
            areas.append((block.host_addr, block.npages))
    return areas


def _parts(random: Random, section: audit.Section) -> list[audit.Section]:
    gfn, npages = section.span.gfn, section.span.npages
    cut = random.randrange(0, npages) if random.randrange(4) == 0 else 0
    if not cut:
        return [section]
    return [
        audit.Section(section.slot, Span(gfn, cut), section.page),
        audit.Section(section.slot, Span(gfn + cut, npages - cut), section.page + cut),
    ]


def _steps(random: Random, layout: Layout) -> list[audit.Sync | audit.Clear]:
    """Syncs of states that are all private, or shared in runs; the last step is a sync."""
    end = max(slot.end_gfn for slot in layout.slots)
    steps: list[audit.Sync | audit.Clear] = []
    for _ in range(random.randrange(1, 4)):
        private = oracle.mask(0, end)
        for _ in range(random.randrange(0, 6)):
            private &= ~oracle.mask(random.randrange(0, end), random.randrange(1, 200))
        if steps and random.randrange(2):
            steps.append(audit.Clear(layout.blocks[random.randrange(len(layout.blocks))].name))
        steps.append(audit.Sync(private))
    return steps


guests = st.randoms(use_true_random=False).map(generated)


@given(guests, tails, versions)
def test_on_generated_guests_kvmenc_has_none_ever(
    guest: audit.Guest, tail: int, version: Version
) -> None:
    assert audit.by_kvmenc(guest, tail).counts == (0, 0)
    assert audit.by_model(guest, Code(version, frozenset()), tail).counts == (0, 0)


@given(guests, tails, versions)
def test_after_a_sync_b7_by_itself_has_done_no_harm(
    guest: audit.Guest, tail: int, version: Version
) -> None:
    only = Code(version, frozenset({Defect.B7}))
    assert audit.by_model(guest, only, tail).counts == (0, 0)


@given(guests, tails)
def test_the_fix_of_2020_changes_the_mask_of_b4_and_nothing_else(
    guest: audit.Guest, tail: int
) -> None:
    """It differs from v3 only in the word that takes the rest of an unaligned section."""
    v3, fix = (audit.by_model(guest, Code.of(it), tail).pages for it in (Version.V3, Version.FIX))
    touched = {
        (it.page * PAGE + it.span.npages // 64 * 64) // PAGE // 64
        for it in guest.sections
        if it.page % 64 and it.span.npages % 64
    }
    for name, start in guest.ram_page.items():
        pages = (v3[name] ^ fix[name]) << start % 64
        changed = {start // 64 + i for i in range(6) if pages >> 64 * i & FULL}
        assert changed <= touched


@given(guests, tails)
def test_with_b4_repaired_the_fix_and_v3_are_the_same(guest: audit.Guest, tail: int) -> None:
    v3, fix = (Code.of(it, repaired={Defect.B4}) for it in (Version.V3, Version.FIX))
    assert audit.by_model(guest, v3, tail) == audit.by_model(guest, fix, tail)


def test_the_fix_mends_some_pages_of_sections_shorter_than_a_word() -> None:
    """Of 41 private pages from page 23 on, v3 sets 23 bits and the fix 41, both from page 0 on."""
    guest = small(64, [(0, 0, 13), (20, 13, 10), (40, 23, 41)], audit.Sync(mask(0, 100)))
    v3, fix = (audit.by_model(guest, Code.of(it), 0).pages for it in (Version.V3, Version.FIX))
    assert (v3["ram"], fix["ram"]) == (mask(23, 41), mask(41, 23))


def test_all_that_the_fix_mends_on_a_real_q35_are_ten_pages() -> None:
    """Of the four sections of SeaBIOS's layout that begin inside a word; with later kernels."""
    v3, fix = (audit.finding(q35("q35"), it, 0).roads for it in (Version.V3, Version.FIX))
    assert v3.private_raw["pc.ram"] ^ fix.private_raw["pc.ram"] == mask(208, 10)
    assert v3.shared_through_firmware == fix.shared_through_firmware
    for name in ("q35-ovmf", "q35-e0000"):
        assert by_version(name, Version.V3) == by_version(name, Version.FIX)


def by_version(name: str, version: Version) -> audit.Roads:
    return audit.by_model(q35(name), Code.of(version), 0)


GENERATED = 100


@cache
def generated_guests() -> tuple[audit.Guest, ...]:
    return tuple(generated(Random(seed)) for seed in range(GENERATED))


def generated_table() -> str:
    """How many of the guests have wrong pages; by defect, how many with it alone."""
    pages = sum(it.pages for it in generated_guests())
    rows = [["code", "bits past the end", "guests", f"pages wrong of {pages:,}", *Defect]]
    for version, kernel in audit.ROWS:
        found = [audit.finding(it, version, audit.KERNELS[kernel]) for it in generated_guests()]
        wrong = [sum(it.roads.counts) for it in found]
        alone = [
            str(sum(it.alone[defect] > 0 for it in found)) if defect in version.defects else "-"
            for defect in Defect
        ]
        rows.append([version, kernel, str(sum(map(bool, wrong))), f"{sum(wrong):,}", *alone])
    ours = [sum(audit.by_kvmenc(it, FULL).counts) for it in generated_guests()]
    rows.append(["kvmenc", "ones", str(sum(map(bool, ours))), str(sum(ours)), *"--------"])
    return audit.markdown(rows)


def examples_table() -> str:
    rows = [["", "guest", "private sent raw", "shared through firmware"]]
    for defect, (what, guest, _) in EXAMPLES.items():
        roads = audit.by_model(guest, Code(Version.V2, frozenset({defect})), FULL)
        rows.append([defect, what, *(ranges(bits["ram"]) for bits in roads)])
    return audit.markdown(rows)


def ranges(pages: int) -> str:
    runs = oracle.runs(pages, pages.bit_length())
    shown = [f"{start} to {end - 1}" if end - start > 1 else str(start) for start, end in runs]
    return ", ".join(shown) or "-"


@pytest.mark.parametrize("table", ["totals", "defects", "generated", "examples"])
def test_the_page_of_docs_shows_these_numbers(table: str) -> None:
    made = {
        "totals": lambda: audit.table(real_guests()),
        "defects": lambda: audit.defect_table(real_guests()),
        "generated": generated_table,
        "examples": examples_table,
    }[table]()
    assert f"\n{made}\n" in PAGE_OF_DOCS.read_text()
