"""A back-test in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc.backtest.result import PREDICTORS
from kvmenc.report.backtestgrid import print_grid
from kvmenc.report.fields import field_name, field_value
from kvmenc.report.roundtable import rounds_table
from kvmenc.report.scenarios import print_scenarios
from kvmenc.report.scores import PREDICTOR_NAMES, bounded, print_summary, print_targets
from kvmenc.report.terminal import bullet, columns

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from kvmenc.backtest.result import (
        Backtest,
        Field,
        Predicted,
        RoundFigures,
        RunScore,
        UsedProfile,
    )
    from kvmenc.plan.result import Counts

__all__ = ["print_backtest"]

#: Seven columns beside it leave a name no more room.
_SHORT: dict[Field, str] = {"dirty-sync-count": "syncs"}


def print_backtest(result: Backtest, console: Console, *, every_run: bool = False) -> None:
    """What there is of: the table of 2023, runs, scenarios, errors over all, and targets.

    Args:
        result: what to print.
        console: where to.
        every_run: each run by itself, not only its scenario; published runs, of which each has
            assumptions of its own, are always printed so.
    """
    if result.grid:
        print_grid(result.grid, console)
    if result.grid or every_run:
        _print_runs(result.runs, console)
    _print_unpredicted([run for run in result.runs if not run.converges], console)
    if result.scenarios and not result.grid:
        console.print(Text("\nScenarios", "bold"))
        print_scenarios(result.scenarios, console)
    if result.summary:
        rules = ", ".join(map(_rules, result.profiles))
        console.print(Text(f"\nErrors over all runs (kvmenc by the rules of {rules})", "bold"))
        print_summary(result, console)
    if result.targets:
        console.print(Text("\nTargets", "bold"))
        print_targets(result.targets, console)


def _rules(profile: UsedProfile) -> str:
    return profile.name if profile.proven else f"{profile.name}, unproven"


def _print_runs(runs: Sequence[RunScore], console: Console) -> None:
    for run in runs:
        if run.converges:
            _print_run(run, console)


def _print_unpredicted(runs: Sequence[RunScore], console: Console) -> None:
    if runs:
        console.print(Text("\nNot predicted, as the source does not say enough", "bold"))
    for run in runs:
        console.print(bullet(f"{run.name}: missing {'; '.join(run.missing)}"))


def _print_run(run: RunScore, console: Console) -> None:
    console.print(Text(f"\n{run.name}", "bold"))
    console.print(Text(f"Source: {run.source}"))
    for line in (*run.assumptions, *run.notes):
        console.print(bullet(line))
    columns_of_each = [text for name in PREDICTORS for text in (PREDICTOR_NAMES[name], "error")]
    table = columns("field", "actual", *columns_of_each)
    table.columns[0].header = ""
    verdicts = [text for name in PREDICTORS for text in (_yes(run.converges[name]), "")]
    table.add_row("converges", _yes(run.converged), *verdicts)
    for it in run.fields:
        predicted = [text for name in PREDICTORS for text in _pair(it.field, it.predicted[name])]
        table.add_row(
            _SHORT.get(it.field) or field_name(it.field),
            field_value(it.field, it.actual),
            *predicted,
        )
    console.print(table)
    if run.rounds:
        pairs = [(_pages(it.predicted), _pages(it.actual)) for it in run.rounds]
        console.print(Text("Pages by round and road"))
        console.print(rounds_table(pairs, "actual", stopped=run.rounds[-1].stopped))


def _pages(it: RoundFigures | None) -> Counts | None:
    return it.pages if it else None


def _yes(converges: bool) -> str:
    return "yes" if converges else "no"


def _pair(field: Field, predicted: Predicted) -> tuple[str, str]:
    error = predicted.error_percent
    return field_value(field, predicted.value), "" if error is None else f"{bounded(error, '+')} %"
