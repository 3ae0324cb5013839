"""The memory map: the RAMBlocks' counts, what the script draws, and a table of the same."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from kvmenc import units
from kvmenc.capture import SegmentFacts
from kvmenc.report.captured import block_row
from kvmenc.report.page.elements import bullets, disclosed, section, table, tag
from kvmenc.report.page.pyramid import COLUMNS, STRETCH_PAGES, Detail, PageBits, cell_pages_for
from kvmenc.report.show import MEMORY, WRITTEN, page_count, zero_bound_lines
from kvmenc.report.terminal import elided

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from xml.etree.ElementTree import Element

    from kvmenc.capture import BitmapKind, BlockFacts, Capture, CaptureFile
    from kvmenc.memory.words import Words
    from kvmenc.report.captured import BlockRow
    from kvmenc.report.page.pyramid import Counts

__all__ = ["Memory", "data_scripts", "detail_scripts", "memory_section"]

#: More would make the page large for what few look up.
_MOST_SLOTS = 4096
#: Of the table behind the map: so many parts of a RAMBlock.
_PARTS = 16


class DrawnBlock(msgspec.Struct, frozen=True):
    """A RAMBlock for the script: numbers only, so that nothing of the capture's text is there.

    Attributes:
        npages: its size.
        first_cell: of its cells; null where there are only ``rows``.
        rows: where there are no bitmaps: npages, private, zero, dirty private, dirty shared.
        zero_known: whether zero pages were looked for.
        dirty_known: whether it is known where in it pages were written.
    """

    npages: int
    first_cell: int | None
    rows: tuple[SegmentFacts, ...]
    zero_known: bool
    dirty_known: bool


class Drawn(msgspec.Struct, frozen=True):
    """All of them.

    Attributes:
        page_size: bytes in a page.
        cell_pages: pages in a cell.
        stretch_pages: pages in a stretch of detail.
        blocks: the RAMBlocks.
        slots: index of the RAMBlock, its first page, pages, first gfn; of address space 0.
    """

    page_size: int
    cell_pages: int
    stretch_pages: int
    blocks: tuple[DrawnBlock, ...]
    slots: tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Memory:
    """What there is to be drawn of a guest's memory.

    Attributes:
        capture: the facts.
        rows: counts by RAMBlock.
        drawn: for the script.
        counts: of all cells.
        detail: single pages.
    """

    capture: Capture
    rows: list[BlockRow]
    drawn: Drawn
    counts: Counts
    detail: Detail

    @classmethod
    def of(cls, file: CaptureFile, room_bytes: int) -> Self:
        """Read the bitmaps, of one RAMBlock at a time.

        Args:
            file: an open capture.
            room_bytes: for the bits of single pages.

        Raises:
            CaptureError: a bitmap is damaged.
        """
        capture, detail = file.capture, Detail(room_bytes)
        cell_pages = cell_pages_for(sum(it.npages for it in capture.blocks if file.kinds(it.name)))
        rows, drawn, counts, ncells = [], [], [np.empty((0, len(COLUMNS)), np.uint32)], 0
        for index, block in enumerate(capture.blocks):
            bitmaps = {kind: file.bitmap(kind, block.name) for kind in file.kinds(block.name)}
            row, bits = block_row(capture, index, bitmaps), PageBits.of(block, bitmaps)
            rows.append(row)
            if bits is None:
                drawn.append(_by_segments(block, row))
                continue
            drawn.append(_by_cells(block, bitmaps, ncells))
            counts.append(bits.counts(cell_pages))
            ncells += len(counts[-1])
            detail.offer(index, bits, block.npages)
        every = Drawn(
            capture.page_size, cell_pages, STRETCH_PAGES, tuple(drawn), tuple(_slots(capture))
        )
        return cls(capture, rows, every, np.concatenate(counts), detail)

    def parts(self, index: int) -> Iterator[SegmentFacts]:
        """The RAMBlock at this index in a few parts, from its start to its end."""
        block = self.drawn.blocks[index]
        if block.first_cell is None:
            yield from block.rows
            return
        cell_pages = self.drawn.cell_pages
        ncells = -(-block.npages // cell_pages)
        cells = self.counts[block.first_cell : block.first_cell + ncells]
        starts = np.arange(0, ncells, -(-ncells // _PARTS))
        sizes = np.diff(np.append(starts * cell_pages, block.npages)).tolist()
        sums = np.add.reduceat(cells, starts, axis=0, dtype=np.int64).tolist()
        for npages, row in zip(sizes, sums, strict=True):
            yield SegmentFacts(npages, *row)


def _by_segments(block: BlockFacts, row: BlockRow) -> DrawnBlock:
    """What the facts alone say: by segments, or else of the whole RAMBlock."""
    written = (row.dirtied_private_pages, row.dirtied_shared_pages)
    whole = SegmentFacts(
        block.npages, block.private_pages, block.zero_pages or 0, *(it or 0 for it in written)
    )
    return DrawnBlock(
        npages=block.npages,
        first_cell=None,
        rows=block.segments or (whole,),
        zero_known=block.zero_pages is not None,
        dirty_known=bool(block.segments) or None not in written,
    )


def _by_cells(
    block: BlockFacts, bitmaps: Mapping[BitmapKind, Words], first_cell: int
) -> DrawnBlock:
    return DrawnBlock(
        npages=block.npages,
        first_cell=first_cell,
        rows=(),
        zero_known="zero" in bitmaps or block.private_pages == block.npages,
        dirty_known="dirty" in bitmaps,
    )


def _slots(capture: Capture) -> Iterator[tuple[int, int, int, int]]:
    """None at all where there are very many: they would make the page large."""
    index = {block.name: i for i, block in enumerate(capture.blocks)}
    if len(capture.slots) <= _MOST_SLOTS:
        for it in capture.slots:
            if it.as_id == 0:
                yield index[it.block], it.block_page, it.npages, it.base_gfn


def data_scripts(memory: Memory) -> Iterator[Element]:
    """What the script reads first; a browser runs none of these."""
    cells = zlib.compress(np.ascontiguousarray(memory.counts, "<u4").data, wbits=-zlib.MAX_WBITS)
    facts = msgspec.json.encode(memory.drawn).decode()
    yield tag("script", facts, type="application/json", id="map-facts")
    yield _packed("map-cells", cells)


def detail_scripts(memory: Memory) -> Iterator[Element]:
    """What it reads where single pages are looked at."""
    for block, number, data in memory.detail.kept():
        yield _packed(f"bits-{block}-{number}", data)


def _packed(name: str, data: bytes) -> Element:
    text = base64.b64encode(data).decode()
    return tag("script", text, type="application/octet-stream", id=name)


def memory_section(memory: Memory) -> Element:
    """The map with its controls and its legend, and the tables."""
    capture = memory.capture
    return section(
        "memory",
        "Memory map",
        tag(
            "p",
            "Row by row, from the start of a RAMBlock to its end. The upper band of a cell is what "
            "its pages are, the lower one which share of them was written while the guest was "
            "watched.",
        ),
        _legend(),
        tag("noscript", tag("p", "The map needs JavaScript; the tables below do not.")),
        tag("div", _controls(capture), _canvas(), _readout(), id="map-box", hidden="hidden"),
        tag("p", left_out_line(memory)),
        _counts("Pages by RAMBlock", memory.rows, MEMORY),
        bullets(zero_bound_lines(capture.blocks)),
        _counts("Pages written at least once while watched", memory.rows, WRITTEN),
        disclosed("The map as a table", _parts_table(memory)),
    )


def left_out_line(memory: Memory) -> str:
    """How far the map goes down."""
    detail, page_size = memory.detail, memory.capture.page_size
    if not detail.stretches:
        return "The capture holds no bitmaps: the map is drawn from its counts."
    if not detail.left_out:
        return "The map goes down to a single page everywhere."
    return (
        f"Left out for size: single pages in {detail.left_out:,} of {detail.stretches:,} stretches "
        f"({units.format_size(detail.left_out_pages * page_size)}). There the map goes down to "
        f"{units.format_size(memory.drawn.cell_pages * page_size)}, and smaller cells, paler, show "
        f"the mean of that; --detail makes more room."
    )


def _legend() -> Element:
    names = {"private": "private", "shared": "shared", "zero": "shared and zero"}
    items = [
        tag("li", tag("span", class_=f"swatch {name}"), words) for name, words in names.items()
    ]
    return tag("ul", *items, class_="legend")


def _controls(capture: Capture) -> Element:
    largest = max(range(len(capture.blocks)), key=lambda i: capture.blocks[i].npages)
    choices = [
        tag(
            "option",
            f"{block.name} ({units.format_size(block.npages * capture.page_size)})",
            value=str(i),
            **({"selected": "selected"} if i == largest else {}),
        )
        for i, block in enumerate(capture.blocks)
    ]
    buttons = {
        "map-in": "Zoom in",
        "map-out": "Zoom out",
        "map-whole": "Whole RAMBlock",
        "map-back": "Earlier",
        "map-on": "Later",
    }
    return tag(
        "div",
        tag("label", "RAMBlock ", tag("select", *choices, id="map-block")),
        *(tag("button", words, type="button", id=name) for name, words in buttons.items()),
        tag("label", "Page ", tag("input", id="map-page", inputmode="numeric", size="12")),
        class_="controls",
        role="group",
        aria_label="What the map shows",
    )


def _canvas() -> Element:
    return tag(
        "canvas",
        id="map",
        tabindex="0",
        role="application",
        aria_label="Memory map",
        aria_describedby="map-keys map-readout",
    )


def _readout() -> Element:
    keys = (
        "Arrows move, + and - (or a double click, with Shift outwards) zoom, Page Up and Page Down "
        "turn over, Home and End go to the ends, 0 shows the whole RAMBlock."
    )
    return tag(
        "div",
        tag("p", id="map-readout", role="status"),
        tag("p", keys, id="map-keys", class_="quiet"),
    )


def _counts(caption: str, rows: Sequence[BlockRow], fields: Mapping[str, str]) -> Element:
    """A RAMBlock to a row, and their sum; the middle of many is left out."""
    cells: list[list[str]] = []
    for number, it in elided(rows):
        if it is None:
            cells.append([f"({number} more)", *("" for _ in fields)])
        else:
            cells.append([it.name, *(page_count([getattr(it, name)]) for name in fields.values())])
    if len(rows) > 1:
        sums = ([getattr(it, name) for it in rows] for name in fields.values())
        cells.append(["all", *map(page_count, sums)])
    return table(caption, ["RAMBlock", *fields], cells)


def _parts_table(memory: Memory) -> Element:
    headings = ("from", "size", "private", "shared", "zero", "written private", "written shared")
    return table(
        "The RAMBlocks in parts", ["RAMBlock", *headings], _parts_rows(memory), class_="parts"
    )


def _parts_rows(memory: Memory) -> Iterator[list[str]]:
    page_size = memory.capture.page_size
    for number, block in elided(memory.capture.blocks):
        if block is None:
            yield [f"({number} more)", *("" for _ in range(7))]
            continue
        drawn, at = memory.drawn.blocks[number - 1], 0
        for it in memory.parts(number - 1):
            yield [
                block.name,
                units.format_size(at * page_size) if at else "0",
                units.format_size(it.npages * page_size),
                f"{it.private_pages:,}",
                f"{it.npages - it.private_pages:,}",
                f"{it.zero_pages:,}" if drawn.zero_known else "-",
                f"{it.dirty_private_pages:,}" if drawn.dirty_known else "-",
                f"{it.dirty_shared_pages:,}" if drawn.dirty_known else "-",
            ]
            at += it.npages
