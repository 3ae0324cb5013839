"""A probe's result in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import Console

    from kvmenc.probe.result import Probe

__all__ = ["print_probe"]

_STYLES = {"yes": "green", "no": "red", "unknown": "yellow", "passed": "green", "failed": "red"}


def print_probe(probe: Probe, console: Console) -> None:
    """Verdicts first, then the self-test, then the evidence."""
    console.print(Text("Verdicts", "bold"))
    console.print(_answers([(it.question, it.answer, it.because) for it in probe.verdicts]))
    if probe.self_test:
        console.print(Text("\nSelf-test", "bold"))
        console.print(_answers([(it.name, it.result, it.detail) for it in probe.self_test]))
    console.print(Text(f"\nEvidence ({probe.backend})", "bold"))
    for it in probe.evidence:
        console.print(Text(f"{it.name} = {it.value}", "bold"), soft_wrap=True)
        console.print(_indented(f"{it.says}  [{it.source}]"))


def _answers(rows: list[tuple[str, str, str]]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(max_width=30)
    table.add_column(min_width=7)
    table.add_column()
    for question, answer, because in rows:
        table.add_row(Text(question), Text(answer, _STYLES.get(answer, "")), Text(because))
    return table


def _indented(text: str) -> Table:
    table = Table.grid()
    table.add_row("    ", Text(text))
    return table
