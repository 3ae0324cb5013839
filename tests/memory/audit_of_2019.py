"""An audit: which pages of a guest the published bitmap code would send by the wrong road, and why.

A guest is taken through some syncs, once by a version of the code posted for QEMU
(models_of_2019.py) and once by kvmenc's GuestMaps. After the last one every page that the guest
sees is compared with the kernel's own word. A page that is private there and shared here would be
sent raw, as ciphertext; the other way round it would go through the firmware.

Why a page is wrong is found by trying, with each defect by itself:

- *mended*: the page is wrong in the version, and right once this one defect is repaired;
- *alone*: the page is wrong even where everything but this one defect is repaired.

They differ where defects meet. A page that two defects both spoil is mended by neither; a page that
is spoilt only where two come together is mended by either, and wrong by none alone.

With no defect left the model must be right on every guest, or else the audit itself is wrong; so
the tests hold that as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, NamedTuple

from kvmenc.memory.sync import GuestMaps
from tests.memory import oracle
from tests.memory.models_of_2019 import FULL, Code, Defect, Span, Version
from tests.memory.sources import Prepared

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvmenc.memory.layout import Layout

__all__ = [
    "KERNELS",
    "ROWS",
    "Clear",
    "Finding",
    "Guest",
    "Roads",
    "Section",
    "Sync",
    "by_kvmenc",
    "by_model",
    "defect_table",
    "finding",
    "markdown",
    "sections_of",
    "table",
]


@dataclass(frozen=True)
class Section:
    """A memory region section: what one call of kvm_sync_page_enc_bitmap() copies.

    Attributes:
        slot: the memslot it lies in.
        span: its own gfns.
        page: its first page in QEMU's one numbering of all RAM.
    """

    slot: Span
    span: Span
    page: int


@dataclass(frozen=True)
class Sync:
    """A sync; ``private`` is the kernel's state then, bit g = gfn g."""

    private: int


@dataclass(frozen=True)
class Clear:
    """A RAMBlock's dirtiness is cleared, as where QEMU resizes it."""

    block: str


@dataclass(frozen=True, eq=False)
class Guest:
    """A layout, and what happens to it.

    Attributes:
        layout: memslots and RAMBlocks; no page has gfns of different states.
        ram_page: each RAMBlock's first page in QEMU's one numbering of all RAM.
        sections: in the order that QEMU syncs them, which is that of their gfns.
        steps: what happens.
        roms: RAMBlocks that are not counted: every version sends ROM raw, whatever its bits are.
    """

    layout: Layout
    ram_page: dict[str, int]
    sections: Sequence[Section]
    steps: Sequence[Sync | Clear]
    roms: frozenset[str] = field(default=frozenset())

    @cached_property
    def seen(self) -> dict[str, int]:
        """Each counted RAMBlock's pages that have a gfn; the others have no state to be wrong."""
        every = (1 << max(slot.end_gfn for slot in self.layout.slots)) - 1
        return self.states(every)

    @cached_property
    def pages(self) -> int:
        """How many pages are counted."""
        return sum(bits.bit_count() for bits in self.seen.values())

    @cached_property
    def truth(self) -> dict[str, int]:
        """What of ``seen`` is private at the last sync."""
        return self.states([step for step in self.steps if isinstance(step, Sync)][-1].private)

    @cached_property
    def nwords(self) -> int:
        """Of QEMU's one bitmap, with a word to spare for what v2 would write past its range."""
        ends = [self.ram_page[block.name] + block.npages for block in self.layout.blocks]
        return max(ends) // 64 + 2

    def states(self, private: int) -> dict[str, int]:
        """A state by gfn as one by page, of the RAMBlocks that are counted."""
        found = {it.name: 0 for it in self.layout.blocks if it.name not in self.roms}
        for slot in self.layout.slots:
            for it in self.layout.pieces_of(slot):
                if it.block.name in found:
                    gfn = slot.base_gfn + it.slot_page
                    found[it.block.name] |= oracle.moved(private, gfn, it.block_page, it.npages)
        return found


def sections_of(layout: Layout, ram_page: dict[str, int]) -> list[Section]:
    """A section for each slot, as in all three versions on x86: they look for a slot just as long.

    (kvm_lookup_matching_slot() wants the same start and the same size, and finds none otherwise.)
    A slot over several RAMBlocks, which no QEMU makes, has a section in each.
    """
    sections = []
    for slot in layout.slots:
        whole_slot = Span(slot.base_gfn, slot.npages)
        for block, group in groupby(layout.pieces_of(slot), key=attrgetter("block")):
            first, *others = group
            npages = first.npages + sum(it.npages for it in others)
            span = Span(slot.base_gfn + first.slot_page, npages)
            sections.append(Section(whole_slot, span, ram_page[block.name] + first.block_page))
    return sections


class Roads(NamedTuple):
    """Pages that would go the wrong road, by RAMBlock, as bits."""

    private_raw: dict[str, int]
    shared_through_firmware: dict[str, int]

    @property
    def pages(self) -> dict[str, int]:
        """Both together."""
        return {
            name: self.private_raw[name] | self.shared_through_firmware[name] for name in self[0]
        }

    @property
    def counts(self) -> tuple[int, int]:
        """How many pages: private sent raw, shared through the firmware."""
        return _count(self.private_raw), _count(self.shared_through_firmware)


def by_model(guest: Guest, code: Code, tail: int) -> Roads:
    """What a version, or a part of its defects, makes of a guest.

    QEMU's bitmap begins as zeros, as QEMU's own did: nothing ever set a bit but a sync.

    Args:
        guest: the guest.
        code: the version.
        tail: what the kernel leaves past the last page of a range, as a word.
    """
    space = [0] * guest.nwords
    for step in guest.steps:
        if isinstance(step, Sync):
            _sync(space, guest, step.private, code, tail)
        else:
            block = next(it for it in guest.layout.blocks if it.name == step.block)
            code.clear_dirty(space, guest.ram_page[block.name], block.npages)
    believed = {
        it.name: code.block_map(space, guest.ram_page[it.name], it.npages)
        for it in guest.layout.blocks
        if it.name in guest.seen
    }
    return _compared(guest, believed)


def by_kvmenc(guest: Guest, tail: int) -> Roads:
    """What kvmenc makes of the same guest, from the same words of the kernel."""
    maps = GuestMaps(guest.layout)
    for step in guest.steps:
        if isinstance(step, Sync):
            maps.sync(Prepared(), Prepared(dict(_slot_bits(guest.layout, step.private, tail))))
        else:
            maps.dirty[step.block].clear()
    believed = {name: oracle.to_int(maps.private[name].words) for name in guest.seen}
    return _compared(guest, believed)


def _sync(space: list[int], guest: Guest, private: int, code: Code, tail: int) -> None:
    for it in guest.sections:
        bitmap = code.read(private, it.slot, it.span, tail)
        code.copy(space, it.page, bitmap, it.span.npages)


def _slot_bits(layout: Layout, private: int, tail: int) -> Iterator[tuple[int, int]]:
    for slot in layout.slots:
        bits = private >> slot.base_gfn & oracle.mask(0, slot.npages)
        if tail:
            bits |= oracle.mask(slot.npages, -slot.npages % 64)
        yield slot.key, bits


def _compared(guest: Guest, believed: dict[str, int]) -> Roads:
    raw, firmware = {}, {}
    for name, seen in guest.seen.items():
        private = guest.truth[name]
        raw[name] = seen & private & ~believed[name]
        firmware[name] = seen & ~private & believed[name]
    return Roads(raw, firmware)


def _count(pages: dict[str, int]) -> int:
    return sum(bits.bit_count() for bits in pages.values())


@dataclass(frozen=True)
class Finding:
    """What is wrong with a version on a guest, and why.

    Attributes:
        roads: the pages.
        mended: how many of them each defect's repair alone mends.
        alone: how many pages are wrong with each defect alone.
        unmended: how many no single repair mends.
    """

    roads: Roads
    mended: dict[Defect, int]
    alone: dict[Defect, int]
    unmended: int


@cache
def finding(guest: Guest, version: Version, tail: int) -> Finding:
    """A version on a guest, with every defect repaired alone and at work alone."""
    roads = by_model(guest, Code.of(version), tail)
    left, mended, alone = roads.pages, {}, {}
    for defect in sorted(version.defects):
        still = by_model(guest, Code.of(version, repaired={defect}), tail).pages
        mended[defect] = _count(_without(roads.pages, still))
        left = {name: bits & still[name] for name, bits in left.items()}
        alone[defect] = _count(by_model(guest, Code(version, frozenset({defect})), tail).pages)
    return Finding(roads, mended, alone, _count(left))


def _without(pages: dict[str, int], others: dict[str, int]) -> dict[str, int]:
    return {name: bits & ~others[name] for name, bits in pages.items()}


#: What a kernel leaves in the last word: up to 2020-02 ones; later what was there, QEMU's zeros.
KERNELS = {"ones": FULL, "zeros": 0}

#: Each version with the kernels of its time; v3 and the fix with both, for what the fix changes.
ROWS = (
    (Version.V2, "ones"),
    (Version.V3, "ones"),
    (Version.FIX, "ones"),
    (Version.V3, "zeros"),
    (Version.FIX, "zeros"),
)


def markdown(table_rows: Iterable[Sequence[str]]) -> str:
    """Rows, the first of them the head, as a table of Markdown."""
    head, *rows = ("| " + " | ".join(row) + " |" for row in table_rows)
    return "\n".join([head, "|---" * head.count(" |") + "|", *rows])


def table(guests: dict[str, Guest]) -> str:
    """How many pages each version gets wrong, and kvmenc."""
    head = "layout", "pages", "code", "bits past the end", "pages wrong"
    rows = [(*head, "private sent raw", "shared through firmware")]
    for name, guest in guests.items():
        for code, kernel, counts in _counts(guest):
            raw, firmware = map(_number, counts)
            pages, wrong = _number(guest.pages), _number(sum(counts))
            rows.append((name, pages, code, kernel, wrong, raw, firmware))
    return markdown(rows)


def _counts(guest: Guest) -> Iterator[tuple[str, str, tuple[int, int]]]:
    for version, kernel in ROWS:
        yield version, kernel, finding(guest, version, KERNELS[kernel]).roads.counts
    raw, firmware = zip(*(by_kvmenc(guest, tail).counts for tail in KERNELS.values()), strict=True)
    yield "kvmenc", "either", (max(raw), max(firmware))


def defect_table(guests: dict[str, Guest]) -> str:
    """The same by defect: mended by its repair alone / wrong with it alone."""
    rows = [("layout", "code", "bits past the end", *Defect, "mended by no one repair")]
    for name, guest in guests.items():
        for version, kernel in ROWS:
            found = finding(guest, version, KERNELS[kernel])
            cells = [
                f"{_number(found.mended[it])} / {_number(found.alone[it])}"
                if it in version.defects
                else "-"
                for it in Defect
            ]
            rows.append((name, version, kernel, *cells, _number(found.unmended)))
    return markdown(rows)


def _number(count: int) -> str:
    return f"{count:,}"
