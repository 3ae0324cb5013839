"""The convergence grid: a table whose cells are coloured, so that it is picture and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units
from kvmenc.report.page.elements import section, table_of, tag
from kvmenc.report.svg import COLOURS, FIRST_LIGHT, shade_of, time_range
from kvmenc.report.sweep import heading_lines, sensitivity_line

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

    from kvmenc.plan.grid import Cell, Grid
    from kvmenc.plan.result import Inputs

__all__ = ["grid_section", "grid_style"]


def grid_style() -> str:
    """Rules for the cells' colours: they bring their own ground and ink, light or dark."""
    inks = ("#fff" if i < FIRST_LIGHT else "#000" for i in range(len(COLOURS)))
    return "".join(
        f".shade{i}{{background:{colour};color:{ink}}}"
        for i, (colour, ink) in enumerate(zip(COLOURS, inks, strict=True))
    )


def grid_section(grid: Grid, asked: Inputs) -> Element:
    """Bandwidths down, downtime limits across; those that were asked for are outlined."""
    bandwidth, limit_ms = asked.max_bandwidth_bytes_per_s, asked.downtime_limit_ms
    limits = ((units.format_time(it), it == limit_ms) for it in grid.downtime_limits_ms)
    headings = [_marked(text, asked) for text, asked in (("bandwidth", False), *limits)]
    rows = [
        _row(one, cells, limit_ms if one == bandwidth else None) for one, cells in _shaded(grid)
    ]
    _, same = heading_lines(grid)
    return section(
        "grid",
        "Where it converges",
        tag(
            "p",
            "The same migration with other limits: its total time, and below the pause; the "
            "lighter, the quicker. A dash: it does not converge."
            + (_asked(asked) if bandwidth in grid.bandwidths_bytes_per_s else ""),
        ),
        table_of("Bandwidth down, downtime limit across", headings, [tag("tbody", *rows)], "grid"),
        tag("p", f"{same} {sensitivity_line(grid)}"),
    )


def _asked(asked: Inputs) -> str:
    words = " Outlined: the limits of the plan above"
    if asked.link_bytes_per_s != asked.max_bandwidth_bytes_per_s:
        link = units.format_bit_rate(asked.link_bytes_per_s)
        words += f", whose link has {link}; in each cell it has the cell's bandwidth"
    return f"{words}."


def _shaded(grid: Grid) -> Iterator[tuple[float, list[tuple[Cell, int | None]]]]:
    """Each bandwidth with its cells, and the colour of each."""
    low, high = time_range(grid) or (1.0, 1.0)
    for bandwidth, cells in grid.rows():
        yield bandwidth, [(it, shade_of(it.total_time_ms, low, high)) for it in cells]


def _row(
    bandwidth: float, cells: list[tuple[Cell, int | None]], asked_limit_ms: float | None
) -> Element:
    return tag(
        "tr",
        tag(
            "th", _marked(units.format_bit_rate(bandwidth), asked_limit_ms is not None), scope="row"
        ),
        *(_cell(it, shade, it.downtime_limit_ms == asked_limit_ms) for it, shade in cells),
    )


def _marked(text: str, asked: bool) -> Element:
    return tag("span", text, class_="asked") if asked else tag("span", text)


def _cell(cell: Cell, shade: int | None, asked: bool) -> Element:
    heard = tag("span", " (the limits of the plan above)", class_="heard") if asked else None
    more = " asked" if asked else ""
    if cell.total_time_ms is None or cell.downtime_ms is None:
        words = tag("span", "does not converge", class_="heard")
        return tag("td", tag("span", "-", aria_hidden="true"), words, heard, class_=f"never{more}")
    return tag(
        "td",
        units.format_time(cell.total_time_ms),
        tag("small", units.format_time(cell.downtime_ms)),
        heard,
        class_=f"shade{shade}{more}",
    )
