"""A grid of plans as a picture: SVG, drawn without any library.

Colours are steps of cividis (J. R. Nunez and others, "Optimizing colormaps with consideration for
color vision deficiency", PLOS ONE 13(7), 2018), which grow lighter from end to end, so that whoever
sees few colours sees the order too. The numbers stand in the cells. The picture brings its own
white ground, so it reads the same on a dark page.
"""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING, NamedTuple

from kvmenc import units
from kvmenc.report.svgparts import SMALL, svg_head, svg_text
from kvmenc.report.sweep import heading_lines, sensitivity_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.plan.grid import Cell, Grid

__all__ = ["COLOURS", "FIRST_LIGHT", "draw_grid", "shade_of", "time_range"]

#: Long times first: the quickest migration is the lightest cell.
COLOURS = ("#00224e", "#2a3f6d", "#575d6d", "#7d7c78", "#a59c74", "#d2c060", "#fee838")
#: From this one on black can be read on it.
FIRST_LIGHT = 3
#: A cell that does not converge, and the strokes over it.
_NEVER, _STROKES = "#f2f2f2", "#bbb"
_GREY = "#444"
_CELL_WIDTH, _CELL_HEIGHT = 92, 40
_MARGIN, _LEFT = 14, 116
_LINE = 16
#: Width of a character, of the letters' height: that of wide faces, such as DejaVu Sans.
_WIDE = 0.6
_SWATCH = 22
#: Narrower grids have as much room for words.
_LEAST_COLUMNS = 5


class _Frame(NamedTuple):
    """Where things are.

    Attributes:
        width: of all.
        top: where the cells begin.
        bottom: where they end.
    """

    width: int
    top: int
    bottom: int


def draw_grid(grid: Grid) -> str:
    """A document of its own: bandwidths down, downtime limits across."""
    columns = max(_LEAST_COLUMNS, len(grid.downtime_limits_ms))
    width = _LEFT + _CELL_WIDTH * columns + _MARGIN
    heading = [line for text in heading_lines(grid) for line in _wrapped(text, width)]
    top = 30 + _LINE * len(heading) + 44
    frame = _Frame(width, top, top + _CELL_HEIGHT * len(grid.bandwidths_bytes_per_s))
    below = _wrapped(sensitivity_line(grid), width)
    height = frame.bottom + 52 + _LINE * len(below)
    lines = [
        *svg_head(width, height, f"What migrating {grid.guest.source} would do"),
        *_pattern(),
        svg_text(_MARGIN, 24, "Migration: total time / pause", size=14, weight="bold"),
        *_paragraph(heading, 30 + _LINE - 4),
        *_axes(grid, frame),
        *_cells(grid, frame),
        *_edge(grid, frame),
        *_legend(grid, frame),
        *_paragraph(below, frame.bottom + 58),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, int((width - 2 * _MARGIN) / (SMALL * _WIDE)))


def _paragraph(lines: list[str], y: int) -> Iterator[str]:
    for number, line in enumerate(lines):
        yield svg_text(_MARGIN, y + _LINE * number, line, size=SMALL, ink=_GREY)


def _pattern() -> Iterator[str]:
    """Strokes for what does not converge: no colour of the scale, and seen without any."""
    yield '<defs><pattern id="never" width="8" height="8" patternUnits="userSpaceOnUse">'
    yield f'<path d="M0 0h8v8h-8z" fill="{_NEVER}"/>'
    yield f'<path d="M-2 2l4-4M0 8l8-8M6 10l4-4" stroke="{_STROKES}"/></pattern></defs>'


def _axes(grid: Grid, frame: _Frame) -> Iterator[str]:
    across = _LEFT + _CELL_WIDTH * len(grid.downtime_limits_ms) / 2
    yield svg_text(across, frame.top - 28, "downtime limit", anchor="middle", ink=_GREY)
    yield svg_text(_LEFT - 8, frame.top - 8, "bandwidth", anchor="end", ink=_GREY)
    for column, limit_ms in enumerate(grid.downtime_limits_ms):
        x = _LEFT + _CELL_WIDTH * (column + 0.5)
        yield svg_text(x, frame.top - 8, units.format_time(limit_ms), anchor="middle")
    for row, bandwidth in enumerate(grid.bandwidths_bytes_per_s):
        y = frame.top + _CELL_HEIGHT * (row + 0.5) + 4
        yield svg_text(_LEFT - 8, y, units.format_bit_rate(bandwidth), anchor="end")


def time_range(grid: Grid) -> tuple[float, float] | None:
    """The shortest and the longest of the migrations that end."""
    totals = [cell.total_time_ms for cell in grid.cells if cell.total_time_ms is not None]
    return (min(totals), max(totals)) if totals else None


def _cells(grid: Grid, frame: _Frame) -> Iterator[str]:
    low, high = time_range(grid) or (1.0, 1.0)
    for row, (_, cells) in enumerate(grid.rows()):
        for column, cell in enumerate(cells):
            x, y = _LEFT + _CELL_WIDTH * column, frame.top + _CELL_HEIGHT * row
            yield from _cell(cell, x, y, shade_of(cell.total_time_ms, low, high))


def shade_of(total_ms: float | None, low: float, high: float) -> int | None:
    """Which colour; by the logarithm, as times differ by orders."""
    if total_ms is None:
        return None
    share = math.log(high / total_ms) / math.log(high / low) if high > low else 1.0
    return min(int(share * len(COLOURS)), len(COLOURS) - 1)


def _cell(cell: Cell, x: int, y: int, shade: int | None) -> Iterator[str]:
    fill = "url(#never)" if shade is None else COLOURS[shade]
    ink = "black" if shade is None or shade >= FIRST_LIGHT else "white"
    yield (
        f'<rect x="{x}" y="{y}" width="{_CELL_WIDTH}" height="{_CELL_HEIGHT}" '
        f'fill="{fill}" stroke="white"/>'
    )
    middle = x + _CELL_WIDTH / 2
    if cell.total_time_ms is None or cell.downtime_ms is None:
        yield svg_text(middle, y + 26, "-", anchor="middle", size=18, weight="bold")
        return
    yield svg_text(middle, y + 17, units.format_time(cell.total_time_ms), anchor="middle", ink=ink)
    pause = f"/ {units.format_time(cell.downtime_ms)}"
    yield svg_text(middle, y + 32, pause, anchor="middle", ink=ink, size=SMALL)


def _edge(grid: Grid, frame: _Frame) -> Iterator[str]:
    """A line between neighbours of which one converges and one does not."""
    rows = [[cell.verdict for cell in cells] for _, cells in grid.rows()]
    steps = []
    for row, verdicts in enumerate(rows):
        for column, verdict in enumerate(verdicts):
            x, y = _LEFT + _CELL_WIDTH * column, frame.top + _CELL_HEIGHT * row
            if column and verdicts[column - 1] != verdict:
                steps.append(f"M{x} {y}v{_CELL_HEIGHT}")
            if row and rows[row - 1][column] != verdict:
                steps.append(f"M{x} {y}h{_CELL_WIDTH}")
    if steps:
        path = "".join(steps)
        yield f'<path d="{path}" stroke="#d00" stroke-width="3" stroke-linecap="square"/>'


def _legend(grid: Grid, frame: _Frame) -> Iterator[str]:
    """What the colours mean, and the strokes where there are any."""
    y, times = frame.bottom + 14, time_range(grid)
    x = float(_MARGIN)
    yield "<g>"
    if times:
        for words, shades in _scale(*times):
            yield svg_text(x, y + 12, words, size=SMALL, ink=_GREY)
            x += len(words) * SMALL * _WIDE + 4
            for shade in shades:
                yield _swatch(x, y, COLOURS[shade])
                x += _SWATCH
            x += 6
    if any(cell.total_time_ms is None for cell in grid.cells):
        yield _swatch(x + 12, y, "url(#never)")
        words = "does not converge" + ("; near the red line luck decides" if times else "")
        yield svg_text(x + 18 + _SWATCH, y + 12, words, size=SMALL, ink=_GREY)
    yield "</g>"


def _scale(low: float, high: float) -> Iterator[tuple[str, range]]:
    """Words, and the colours that follow them."""
    last = len(COLOURS) - 1
    if low == high:
        yield units.format_time(low), range(last, last + 1)
        return
    yield units.format_time(high), range(len(COLOURS))
    yield units.format_time(low), range(0)


def _swatch(x: float, y: int, fill: str) -> str:
    return f'<rect x="{x:g}" y="{y}" width="{_SWATCH}" height="16" fill="{fill}"/>'
