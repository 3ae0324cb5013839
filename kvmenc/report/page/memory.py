"""What the memory map is drawn from: counts of cells, single pages, where memslots are."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from kvmenc.capture import SegmentFacts
from kvmenc.report.captured import block_row
from kvmenc.report.page.elements import tag
from kvmenc.report.page.pyramid import COLUMNS, STRETCH_PAGES, Detail, PageBits, cell_pages_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from xml.etree.ElementTree import Element

    from kvmenc.capture import BitmapKind, BlockFacts, Capture, CaptureFile
    from kvmenc.memory.words import Words
    from kvmenc.report.captured import BlockRow
    from kvmenc.report.page.pyramid import Counts

__all__ = ["Memory", "data_scripts", "detail_scripts"]

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
    def of(
        cls,
        file: CaptureFile,
        room_bytes: int,
        update: Callable[[float], object] = lambda _pages: None,
    ) -> Self:
        """Read the bitmaps, of one RAMBlock at a time.

        Args:
            file: an open capture.
            room_bytes: for the bits of single pages.
            update: told of how many pages they have been packed.

        Raises:
            CaptureError: a bitmap is damaged.
        """
        capture, detail = file.capture, Detail(room_bytes, update)
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
