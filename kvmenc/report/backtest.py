"""A back-test in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc import units
from kvmenc.backtest.result import PREDICTORS
from kvmenc.report.terminal import bullet, columns

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.table import Table

    from kvmenc.backtest.result import (
        Backtest,
        Cell,
        Field,
        Grid,
        Predicted,
        Predictor,
        RunScore,
        Spread,
        Summary,
        Why,
    )

__all__ = ["print_backtest"]

_NAMES: dict[Predictor, str] = {
    "kvmenc": "kvmenc",
    "rule2023": "2023 rule",
    "geometric": "geometric",
}

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
_SUMMARY = (
    "verdicts: right ones, of all runs predicted",
    "errors: median / 90th percentile (runs), without sign",
    "syncs: dirty-sync-count off by one at most",
)


def _count(value: float) -> str:
    return f"{value:,.0f}"


_ROWS: dict[Field, tuple[str, Callable[[float], str]]] = {
    "total_time_ms": ("total time", units.format_time),
    "downtime_ms": ("downtime", units.format_time),
    "transferred_bytes": ("transferred", units.format_size),
    "dirty_sync_count": ("syncs", _count),
    "normal_pages": ("normal", _count),
    "duplicate_pages": ("duplicate", _count),
    "remaining_bytes": ("remaining", units.format_size),
}


def print_backtest(result: Backtest, console: Console) -> None:
    """The table of 2023, the runs one by one, those not predicted, and the errors over all."""
    if result.grid:
        _print_grid(result.grid, console)
    for run in result.runs:
        if run.converges:
            _print_run(run, console)
    unpredicted = [run for run in result.runs if not run.converges]
    if unpredicted:
        _heading("Not predicted, as the source does not say enough", console)
    for run in unpredicted:
        console.print(bullet(f"{run.name}: missing {'; '.join(run.missing)}"))
    if result.summary:
        _heading(f"Errors over all runs (kvmenc by the rules of {result.profile})", console)
        console.print(_summary(result.summary))
        for line in _SUMMARY:
            console.print(bullet(line))


def _heading(text: str, console: Console) -> None:
    console.print(Text(f"\n{text}", "bold"))


def _print_grid(grid: Grid, console: Console) -> None:
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


def _print_run(run: RunScore, console: Console) -> None:
    _heading(run.name, console)
    console.print(Text(f"Source: {run.source}"))
    for line in (*run.assumptions, *run.notes):
        console.print(bullet(line))
    columns_of_each = [heading for name in PREDICTORS for heading in (_NAMES[name], "error")]
    table = columns("road", "actual", *columns_of_each)
    table.columns[0].header = ""
    verdicts = [text for name in PREDICTORS for text in (_yes(run.converges[name]), "")]
    table.add_row("converges", _yes(run.converged), *verdicts)
    for it in run.fields:
        label, form = _ROWS[it.field]
        predicted = [text for name in PREDICTORS for text in _pair(it.predicted[name], form)]
        table.add_row(label, form(it.actual), *predicted)
    console.print(table)


def _yes(converges: bool) -> str:
    return "yes" if converges else "no"


def _pair(predicted: Predicted, form: Callable[[float], str]) -> tuple[str, str]:
    value, error = predicted.value, predicted.error_percent
    return "-" if value is None else form(value), "" if error is None else f"{_percent(error):+} %"


def _percent(error: float) -> float:
    """Two digits are enough."""
    return round(error) if abs(error) >= 10 else round(error, 1)


def _summary(summary: Sequence[Summary]) -> Table:
    table = columns("road", "verdicts", "total time", "downtime", "transferred", "syncs")
    table.columns[0].header = ""
    for it in summary:
        table.add_row(
            _NAMES[it.predictor],
            f"{it.verdicts_right} of {it.runs}",
            _spread(it.total_time),
            _spread(it.downtime),
            _spread(it.transferred),
            f"{it.syncs_within_1} of {it.syncs}" if it.syncs else "-",
        )
    return table


def _spread(spread: Spread | None) -> str:
    if not spread:
        return "-"
    return f"{_percent(spread.median_percent)} / {_percent(spread.p90_percent)} % ({spread.runs})"
