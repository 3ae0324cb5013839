"""A grid of plans as a picture: SVG, drawn without any library.

Colours are steps of cividis (J. R. Nunez and others, "Optimizing colormaps with consideration for
color vision deficiency", PLOS ONE 13(7), 2018), which grow lighter from end to end, so that whoever
sees few colours sees the order too. The numbers stand in the cells.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from kvmenc import units
from kvmenc.report.sweep import sensitivity_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.plan.grid import Cell, Grid

__all__ = ["draw_grid"]

#: Long times first: the quickest migration is the lightest cell.
_COLOURS = ("#00224e", "#2a3f6d", "#575d6d", "#7d7c78", "#a59c74", "#d2c060", "#fee838")
#: From this one on black can be read on it.
_FIRST_LIGHT = 3
_CELL_WIDTH, _CELL_HEIGHT = 92, 40
_LEFT, _TOP, _BOTTOM = 110, 56, 72


def draw_grid(grid: Grid) -> str:
    """A document of its own: bandwidths down, downtime limits across."""
    width = _LEFT + _CELL_WIDTH * max(5, len(grid.downtime_limits_ms)) + 20
    height = _TOP + _CELL_HEIGHT * len(grid.bandwidths_bytes_per_s) + _BOTTOM
    lines = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="12">'
        ),
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _text(10, 20, f"Total time / pause: {grid.guest.source}", weight="bold"),
        *_axes(grid, height),
        *_cells(grid),
        *_sensitivity(grid, height),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _axes(grid: Grid, height: int) -> Iterator[str]:
    for column, limit_ms in enumerate(grid.downtime_limits_ms):
        x = _LEFT + _CELL_WIDTH * (column + 0.5)
        yield _text(x, _TOP - 8, units.format_time(limit_ms), anchor="middle")
    for row, bandwidth in enumerate(grid.bandwidths_bytes_per_s):
        y = _TOP + _CELL_HEIGHT * (row + 0.5) + 4
        yield _text(_LEFT - 8, y, units.format_bit_rate(bandwidth), anchor="end")
    below = height - 44
    yield _text(10, below, "down: bandwidth; across: downtime limit; - does not converge")


def _sensitivity(grid: Grid, height: int) -> Iterator[str]:
    """In two lines, so that it fits under a narrow grid."""
    head, colon, changes = sensitivity_line(grid).partition(": ")
    yield _text(10, height - 24, head + colon.rstrip(), size=10)
    yield _text(10, height - 10, changes, size=10)


def _cells(grid: Grid) -> Iterator[str]:
    totals = [cell.total_time_ms for cell in grid.cells if cell.total_time_ms is not None]
    low, high = (min(totals), max(totals)) if totals else (1.0, 1.0)
    for row, (_, cells) in enumerate(grid.rows()):
        for column, cell in enumerate(cells):
            x, y = _LEFT + _CELL_WIDTH * column, _TOP + _CELL_HEIGHT * row
            yield from _cell(cell, x, y, _shade(cell.total_time_ms, low, high))


def _shade(total_ms: float | None, low: float, high: float) -> int | None:
    """Which colour; by the logarithm, as times differ by orders."""
    if total_ms is None:
        return None
    share = math.log(high / total_ms) / math.log(high / low) if high > low else 1.0
    return min(int(share * len(_COLOURS)), len(_COLOURS) - 1)


def _cell(cell: Cell, x: int, y: int, shade: int | None) -> Iterator[str]:
    fill = "white" if shade is None else _COLOURS[shade]
    ink = "black" if shade is None or shade >= _FIRST_LIGHT else "white"
    yield (
        f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH}" height="{_CELL_HEIGHT}" '
        f'fill="{fill}" stroke="#888"/>'
    )
    middle = x + _CELL_WIDTH / 2
    if cell.total_time_ms is None or cell.downtime_ms is None:
        yield _text(middle, y + 24, "-", anchor="middle")
        return
    yield _text(middle, y + 17, units.format_time(cell.total_time_ms), anchor="middle", ink=ink)
    pause = f"/ {units.format_time(cell.downtime_ms)}"
    yield _text(middle, y + 32, pause, anchor="middle", ink=ink, size=10)


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    ink: str = "black",
    size: int = 12,
    weight: str = "normal",
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{ink}" font-size="{size}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )
