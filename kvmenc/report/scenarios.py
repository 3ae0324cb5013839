"""Scenarios of a back-test, one to a line, in a terminal of 80 columns."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from kvmenc.report.scores import bounded, percent
from kvmenc.report.terminal import bullet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from kvmenc.backtest.result import Field, FieldScore, ScenarioScore

__all__ = ["print_scenarios"]

#: Of a line, what numbers take.
_NUMBERS_WIDTH = 60
_LEAST_NAME_WIDTH = 16
_HEADINGS = (
    "ends",
    "plan",
    "total\ns",
    "+-\n%",
    "plan\ns",
    "off\n%",
    "after\noff %",
    "syncs",
    "pause\nms",
    "sent\noff %",
)
_LEGEND = (
    (
        "ends: repeats that converged; plan: kvmenc's verdict, and where it is on a knife edge the "
        "probability that it states"
    ),
    "total: mean of those repeats; +-: longest less shortest, over that; plan: kvmenc's total",
    "off: errors of kvmenc's plan in total time, in the time after the bulk, in bytes sent",
    "syncs, pause: actual/planned; a pause is scored over TCP only",
)


def print_scenarios(scenarios: Sequence[ScenarioScore], console: Console) -> None:
    """What happened beside what kvmenc planned, repeats together."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("", justify="left", no_wrap=True)
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    width = max(_LEAST_NAME_WIDTH, console.width - _NUMBERS_WIDTH)
    for it in scenarios:
        name = "\n".join(textwrap.wrap(it.name, width))
        table.add_row(Text(name), *_numbers(it))
    console.print(table)
    for line in _LEGEND:
        console.print(bullet(line))


def _numbers(it: ScenarioScore) -> tuple[str, ...]:
    fields = {score.field: score for score in it.fields}
    total = fields.get("total-time")
    return (
        f"{it.converged}/{it.runs}",
        _verdict(it),
        _seconds(total.actual if total else None),
        "-" if it.spread_percent is None else f"{percent(it.spread_percent)}",
        _seconds(total.predicted["kvmenc"].value if total else None),
        _error(total),
        _error(fields.get("after_bulk_ms")),
        _both(fields, "dirty-sync-count"),
        _both(fields, "downtime"),
        _error(fields.get("transferred")),
    )


def _verdict(it: ScenarioScore) -> str:
    verdict = {0: "no", it.runs: "yes"}.get(it.converges["kvmenc"], "both")
    if not it.knife_edge or it.probability_converges is None:
        return verdict
    return f"{verdict} {it.probability_converges:.2f}".replace("0.", ".")


def _seconds(ms: float | None) -> str:
    return "-" if ms is None else f"{ms / 1000:.1f}"


def _error(score: FieldScore | None) -> str:
    error = score.predicted["kvmenc"].error_percent if score else None
    return "-" if error is None else bounded(error, "+")


def _both(fields: dict[Field, FieldScore], field: Field) -> str:
    if not (score := fields.get(field)):
        return "-"
    planned = score.predicted["kvmenc"].value
    return f"{score.actual:.0f}/{'-' if planned is None else f'{planned:.0f}'}"
