"""A map of a RAMBlock: cells of many pages, and which share of them is private, zero, dirty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np
from rich.text import Text

from kvmenc import units
from kvmenc.capture import BitmapKind
from kvmenc.report.terminal import elided

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rich.console import Console

    from kvmenc.memory.words import Words

__all__ = ["BlockMap", "print_maps"]

_LEGEND = "A cell: blank no page, . under 1 %, : under 10 %, 1-9 tens of per cent, # all."

_ROW_CELLS = 64
#: Characters of a line that are no cells.
_BESIDE_ROW = 12
# One line is enough for a block of 64 MiB, four for the largest.
_SMALL_PAGES, _LARGE_ROWS = 2**14, 4

# In the order in which they are shown.
_STYLES: dict[BitmapKind, str] = {"private": "magenta", "zero": "cyan", "dirty": "red"}


class BlockMap(msgspec.Struct, frozen=True):
    """A RAMBlock in cells of equal size, the last one perhaps smaller.

    Attributes:
        block: its name.
        npages: its size.
        cell_pages: pages in a cell, a power of two.
        cells: of each bitmap that there is, how many pages of each cell have their bit set.
    """

    block: str
    npages: int
    cell_pages: int
    cells: dict[BitmapKind, list[int]]

    @classmethod
    def of(cls, block: str, npages: int, bitmaps: Mapping[BitmapKind, Words]) -> BlockMap:
        """Count the cells of each bitmap."""
        most_cells = _ROW_CELLS * (1 if npages <= _SMALL_PAGES else _LARGE_ROWS)
        cell_pages = 1 << max(0, (npages - 1) // most_cells).bit_length()
        cells = {kind: _cells(words, npages, cell_pages) for kind, words in bitmaps.items()}
        return cls(block, npages, cell_pages, cells)

    def rows(self, kind: BitmapKind, row_cells: int = _ROW_CELLS) -> Iterator[str]:
        """Lines of so many cells, a character each; see ``_LEGEND``."""
        sizes = [self.cell_pages] * len(self.cells[kind])
        sizes[-1] = self.npages - self.cell_pages * (len(sizes) - 1)
        row = "".join(map(_share, self.cells[kind], sizes))
        for start in range(0, len(row), row_cells):
            yield row[start : start + row_cells]


def _cells(words: Words, npages: int, cell_pages: int) -> list[int]:
    """Ones in each cell. Cells of many pages are counted in words, small ones in bits."""
    if cell_pages % 64 == 0:
        counts, step = np.bitwise_count(words), cell_pages // 64
    else:
        counts = np.unpackbits(words.view(np.uint8), bitorder="little", count=npages)
        step = cell_pages
    cells = np.add.reduceat(counts, np.arange(0, counts.size, step), dtype=np.int64)
    ones: list[int] = cells.tolist()
    return ones


def _share(ones: int, pages: int) -> str:
    if ones in {0, pages}:
        return "#" if ones else " "
    if ones * 10 < pages:
        return "." if ones * 100 < pages else ":"
    return str(ones * 10 // pages)


def print_maps(maps: Sequence[BlockMap], page_size: int, console: Console) -> None:
    """The maps, the middle of many left out."""
    console.print(Text(f"{_LEGEND}\n"))
    for number, it in elided(maps):
        if it:
            _print_map(it, page_size, console)
        else:
            console.print(Text(f"({number} more)"))


def _print_map(it: BlockMap, page_size: int, console: Console) -> None:
    """What is all or none in words; of the rest a line for each kind and row of cells."""
    ones = {kind: sum(cells) for kind, cells in it.cells.items()}
    plain = {
        kind: "all" if count else "none" for kind, count in ones.items() if count in {0, it.npages}
    }
    said = [f"{kind} {word}" for kind, word in plain.items()]
    drawn = [kind for kind in _STYLES if kind in it.cells and kind not in plain]
    if drawn:
        said.append(f"a cell is {units.format_size(it.cell_pages * page_size)}")
    console.print(
        Text(f"{it.block}, {units.format_size(it.npages * page_size)}: {', '.join(said)}")
    )
    row_cells = _row_cells(console.width)
    for rows in zip(*(it.rows(kind, row_cells) for kind in drawn), strict=True):
        for kind, row in zip(drawn, rows, strict=True):
            console.print(Text.assemble(f"  {kind:<7} |", (row, _STYLES[kind]), "|"))


def _row_cells(width: int) -> int:
    """As many as fit beside the kind: a power of two, so that a line begins at a round offset."""
    return 1 << max(3, (width - _BESIDE_ROW).bit_length() - 1)
