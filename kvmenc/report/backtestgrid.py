"""The table of 2023 in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc.report.terminal import bullet, columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console
    from rich.table import Table

    from kvmenc.backtest.result import Cell, Grid, Why

__all__ = ["print_grid"]

_WHY: dict[Why, str] = {
    "neither": "",
    "rounds": "a",
    "pending-zero": "b",
    "window": "c",
}
_LEGEND = (
    "9 bytes: ms more by sending a zero page as 9 bytes, as QEMU does; the rule sends 8",
    "rest: ms more for the reason in the last column",
    (
        "a: QEMU sends a page that is written before its turn only once, and syncs as soon as less "
        "than the threshold is pending; the rule sends all that a round dirtied in the next one"
    ),
    (
        "b: the rule sends all in the pause; to QEMU a zero page is pending as a whole one, and so "
        "its threshold is passed (an unlimited pause is 2000 s, its highest limit)"
    ),
    "c: the rule sends all in the pause; QEMU first measures its bandwidth for 100 ms",
)


def print_grid(grid: Grid, console: Console) -> None:
    """The counts, the cells, and what their notes mean."""
    console.print(Text("The table of the 2023 rule, and kvmenc's plan of the same guest", "bold"))
    console.print(Text(f"Source: {grid.source}"))
    it = grid.counts
    console.print(
        bullet(f"the rule gives the published second in {it.reproduced} of {it.all} cells")
    )
    console.print(bullet(f"with zero pages of 9 bytes in {it.reproduced_with_9_bytes}"))
    console.print(bullet(f"with Mbps of 1000s, not 1024s, in {it.reproduced_with_1000}"))
    console.print(bullet(f"kvmenc gives the same second in {it.same_second}"))
    console.print(bullet(f"kvmenc gives the opposite verdict in {it.flips}"))
    console.print(Text())
    console.print(_cells(grid.cells))
    for line in _LEGEND:
        console.print(bullet(line))


def _cells(cells: Sequence[Cell]) -> Table:
    table = columns(
        "bandwidth",
        "pause",
        "2023",
        "kvmenc",
        "2023\nrounds",
        "kvmenc\nrounds",
        "9 bytes",
        "rest",
        "note",
    )
    for it in cells:
        table.add_row(
            it.bandwidth,
            it.downtime_limit,
            _known(it.rule2023_seconds, "{} s"),
            _known(it.kvmenc_seconds, "{} s"),
            _known(it.rule2023_rounds, "{:,}"),
            _known(it.kvmenc_rounds, "{:,}"),
            _known(it.zero_byte_ms, "{:+,.0f}"),
            _known(it.other_ms, "{:+,.0f}"),
            _WHY[it.why] + (" opposite verdict" if it.flips else ""),
        )
    return table


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
