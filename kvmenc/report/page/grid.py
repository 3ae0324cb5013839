"""The convergence grid: a table whose cells are coloured, so that it is picture and numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units
from kvmenc.report.page.elements import section, table_of, tag
from kvmenc.report.svg import COLOURS, FIRST_LIGHT, shade_of, time_range
from kvmenc.report.sweep import heading_lines, sensitivity_line

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from kvmenc.plan.grid import Cell, Grid

__all__ = ["grid_section", "grid_style"]


def grid_style() -> str:
    """Rules for the cells' colours: they bring their own ground and ink, light or dark."""
    inks = ("#fff" if i < FIRST_LIGHT else "#000" for i in range(len(COLOURS)))
    return "".join(
        f".shade{i}{{background:{colour};color:{ink}}}"
        for i, (colour, ink) in enumerate(zip(COLOURS, inks, strict=True))
    )


def grid_section(grid: Grid) -> Element:
    """Bandwidths down, downtime limits across."""
    headings = ["bandwidth", *map(units.format_time, grid.downtime_limits_ms)]
    low, high = time_range(grid) or (1.0, 1.0)
    rows = [
        tag(
            "tr",
            tag("th", units.format_bit_rate(bandwidth), scope="row"),
            *(_cell(cell, shade_of(cell.total_time_ms, low, high)) for cell in cells),
        )
        for bandwidth, cells in grid.rows()
    ]
    _, same = heading_lines(grid)
    return section(
        "grid",
        "Where it converges",
        tag(
            "p",
            "The same migration with other limits: its total time, and below the pause. A dash: "
            "it does not converge.",
        ),
        table_of("Bandwidth down, downtime limit across", headings, [tag("tbody", *rows)], "grid"),
        tag("p", f"{same} {sensitivity_line(grid)}"),
    )


def _cell(cell: Cell, shade: int | None) -> Element:
    if cell.total_time_ms is None or cell.downtime_ms is None:
        words = tag("span", "does not converge", class_="heard")
        return tag("td", tag("span", "-", aria_hidden="true"), words, class_="never")
    return tag(
        "td",
        units.format_time(cell.total_time_ms),
        tag("small", units.format_time(cell.downtime_ms)),
        class_=f"shade{shade}",
    )
