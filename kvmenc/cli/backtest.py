"""``kvmenc backtest``: predicted against what really happened."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from kvmenc.cli.common import INPUT, console, emit_json, json_option, progress

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]

_EXAMPLES = """\b
Examples:
  kvmenc backtest
  kvmenc backtest --json | jq '.grid.cells[] | select(.why == "rounds")'
  kvmenc backtest runs/*.json
  kvmenc backtest runs/*.json --json | jq .targets
"""


@click.command(epilog=_EXAMPLES)
@click.argument("files", nargs=-1, metavar="[FILE]...", type=INPUT)
@click.option("--runs", is_flag=True, help="Each run by itself, not only its scenario.")
@json_option
def command(*, files: tuple[Path, ...], runs: bool, as_json: bool) -> None:
    """Predict migrations that happened, and say how far off the predictions are.

    Each FILE is one migration: the capture made before, the parameters, and what QEMU's
    query-migrate said at the end (docs/backtest.md). Without FILE: the migrations that were
    published with enough detail, and the table of the 2023 rule. Beside kvmenc's plan stand that
    rule and the geometric series. Repeats of a scenario are one line; then come the errors over
    all runs, and what was asked of kvmenc beside what it came to.
    """
    from kvmenc.backtest import (  # noqa: PLC0415 - numpy is slow to import
        backtest,
        builtin_backtest,
        load_run,
    )

    with progress("predicting", 1) as update:
        given = [load_run(it) for it in files]
        result = backtest(given, update) if files else builtin_backtest(update)
    if as_json:
        emit_json(result)
    else:
        from kvmenc.report.backtest import print_backtest  # noqa: PLC0415 - rich is slow to import

        print_backtest(result, console(), every_run=runs)
