"""A migration in a terminal of 80 columns: predicted against actual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc import units
from kvmenc.report.terminal import columns

if TYPE_CHECKING:
    from rich.console import Console

    from kvmenc.migrate import FieldPair, MigrateReport

__all__ = ["print_migration"]

_TIMES = {"total-time", "downtime"}
_SIZES = {"transferred", "precopy-bytes", "downtime-bytes"}


def print_migration(report: MigrateReport, console: Console) -> None:
    """How it ended, then field by field of query-migrate."""
    end = f"{report.outcome}: {report.reason}" if report.reason else report.outcome
    console.print(Text(f"Migration to {report.uri}: {end}.\n", "bold"))
    table = columns("field", "predicted", "actual", "error")
    for it in report.fields:
        table.add_row(
            *map(Text, (it.field, _value(it, it.predicted), _value(it, it.actual))), _error(it)
        )
    console.print(table)


def _value(it: FieldPair, value: float | None) -> str:
    if value is None:
        return "-"
    if it.field in _TIMES:
        return units.format_time(value)
    return units.format_size(round(value)) if it.field in _SIZES else f"{round(value):,}"


def _error(it: FieldPair) -> Text:
    """Of the prediction, against what happened."""
    if it.predicted is None or not it.actual:
        return Text("-")
    return Text(f"{(it.predicted - it.actual) / it.actual:+.1%}")
