"""A grid of plans as a table of 80 columns, and as lines of CSV."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc import units
from kvmenc.plan.profile import PROFILES
from kvmenc.report.terminal import capability_words, columns, guest_words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console

    from kvmenc.plan.grid import Cell, Grid, Sensitivity

__all__ = ["csv_lines", "heading_lines", "print_grid", "sensitivity_line"]

#: Characters of a line: a bandwidth's, a cell's with what is between two.
_BANDWIDTH_WIDTH, _CELL_WIDTH = 11, 11
_NONE = "-"
_NAMES = {
    "bandwidth": "bandwidth",
    "downtime-limit": "downtime limit",
    "private-rate": "firmware rate",
    "writes": "guest's writes",
}


def print_grid(grid: Grid, console: Console) -> None:
    """Total time and pause of each cell, then what matters most."""
    for line in heading_lines(grid):
        console.print(Text(line))
    console.print(Text('Cells: total time / pause; "-" does not converge.\n'))
    limits = grid.downtime_limits_ms
    at_once = max(1, (console.width - _BANDWIDTH_WIDTH) // _CELL_WIDTH)
    for start in range(0, len(limits), at_once):
        _print_part(grid, range(start, min(start + at_once, len(limits))), console)
    console.print(Text(sensitivity_line(grid)))


def heading_lines(grid: Grid) -> tuple[str, str]:
    """The guest; then what is the same in all cells, and whose rules were followed."""
    same = [_rules(grid.profile)]
    if grid.guest.private_pages:
        same.append(f"firmware {units.format_page_rate(grid.inputs.private_rate_pps)}")
    if grid.inputs.time_limit_ms is not None:
        same.append(f"time limit {units.format_time(grid.inputs.time_limit_ms)}")
    same += capability_words(grid.inputs)
    return f"Guest: {guest_words(grid.guest)}.", f"All cells: {', '.join(same)}."


def _rules(name: str) -> str:
    """A profile, and that nobody has compared its rules with real runs where that is so."""
    proven = any(it.name == name and it.proven for it in PROFILES.values())
    return f"rules of {name}{'' if proven else ' (UNPROVEN)'}"


def _print_part(grid: Grid, places: Sequence[int], console: Console) -> None:
    names = [units.format_time(grid.downtime_limits_ms[place]) for place in places]
    table = columns("bandwidth", *names)
    for bandwidth, cells in grid.rows():
        some = [cells[place] for place in places]
        table.add_row(units.format_bit_rate(bandwidth), *map(_total, some))
        if any(cell.downtime_ms for cell in some):
            table.add_row("", *map(_pause, some), style="dim")
    console.print(table)
    console.print(Text())


def _total(cell: Cell) -> str:
    return _NONE if cell.total_time_ms is None else units.format_time(cell.total_time_ms)


def _pause(cell: Cell) -> str:
    return "" if cell.downtime_ms is None else f"/{units.format_time(cell.downtime_ms)}"


def sensitivity_line(grid: Grid) -> str:
    """What 10 per cent of each parameter change, the one that changes most first."""
    at = grid.sensitive_at
    if at is None or at.total_time_ms is None:
        return "No cell converges."
    base = at.total_time_ms
    changes = ", ".join(f"{_NAMES[one.parameter]} {_change(one, base)}" for one in grid.sensitivity)
    where = f"{units.format_bit_rate(at.max_bandwidth_bytes_per_s)}"
    limit = units.format_time(at.downtime_limit_ms)
    return f"10 % less/more at {where} and {limit} change the total time by: {changes}."


def _change(one: Sensitivity, base_ms: float) -> str:
    totals = one.less_total_time_ms, one.more_total_time_ms
    changes = [
        "does not converge" if it is None else _signed((it - base_ms) / base_ms) for it in totals
    ]
    return "/".join(dict.fromkeys(changes))


def _signed(share: float) -> str:
    text = f"{share * 100:+.1f}"
    return f"{text} %" if float(text) else "0 %"


def csv_lines(grid: Grid) -> Iterator[str]:
    """A heading, then a line for each cell; empty where it does not converge."""
    yield "max_bandwidth_bytes_per_s,downtime_limit_ms,verdict,total_time_ms,downtime_ms,sync_count"
    for cell in grid.cells:
        fields = (
            f"{cell.max_bandwidth_bytes_per_s:.17g}",
            f"{cell.downtime_limit_ms:.17g}",
            cell.verdict,
            _number(cell.total_time_ms),
            _number(cell.downtime_ms),
            str(cell.sync_count),
        )
        yield ",".join(fields)


def _number(ms: float | None) -> str:
    return "" if ms is None else f"{ms:.3f}"
