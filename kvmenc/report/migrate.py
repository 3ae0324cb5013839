"""A migration in a terminal of 80 columns: predicted against actual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc.report.fields import field_name, field_value
from kvmenc.report.terminal import columns

if TYPE_CHECKING:
    from rich.console import Console

    from kvmenc.migrate import FieldPair, MigrateReport

__all__ = ["print_migration"]


def print_migration(report: MigrateReport, console: Console) -> None:
    """How it ended, then field by field of query-migrate."""
    end = f"{report.outcome}: {report.reason}" if report.reason else report.outcome
    console.print(Text(f"Migration to {report.uri}: {end}.\n", "bold"))
    table = columns("field", "predicted", "actual", "error")
    for it in report.fields:
        table.add_row(*map(Text, _row(it)))
    console.print(table)


def _row(it: FieldPair) -> tuple[str, str, str, str]:
    error = it.error_percent
    began = it.field != "total-time" or it.actual  # QEMU says 0 of what it could not begin
    return (
        field_name(it.field),
        field_value(it.field, it.predicted),
        field_value(it.field, it.actual if began else None),
        "-" if error is None else f"{error:+.1f} %",
    )
