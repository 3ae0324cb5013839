"""A rehearsal in a terminal of 80 columns: the verdict, the rounds beside the plan's, both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc import units
from kvmenc.rehearsal.result import MOST_TOLD
from kvmenc.report.roundtable import rounds_table
from kvmenc.report.terminal import columns, guest_words, parts_table, sentence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from kvmenc.plan.result import Plan
    from kvmenc.rehearsal.result import Comparison, DryRun, Survival, WrongPage

__all__ = ["print_rehearsal"]

_RUNS = {True: "it runs on", False: "IT DOES NOT RUN", None: "it had halted by itself"}


def print_rehearsal(result: DryRun, console: Console) -> None:
    """What became of the guest, then how."""
    style = "bold green" if result.verdict == "whole" else "bold red"
    console.print(Text(_verdict(result), style))
    for line in _why(result):
        console.print(Text(line))
    console.print(Text(f"\nGuest: {guest_words(result.ledger.guest)}; {result.vcpus}."))
    console.print(Text(f"Sync: {result.protocol}.\n"))
    console.print(_rounds(result))
    console.print(Text())
    console.print(_times(result.plan, result.ledger))
    console.print(Text(f"\n{_effort(result)}"))
    console.print(Text("\nWhat was real", "bold"))
    console.print(parts_table((it.name, it.real, it.how) for it in result.parts))


def _verdict(result: DryRun) -> str:
    where = f"at the {result.runs_at}" if result.runs_at else "nowhere"
    what = {
        "whole": f"Whole: the guest is {where}, every page as it was.",
        "wrong": f"Wrong: the guest is {where}, and is not what it was.",
        "does-not-converge": f"Does not converge: the guest is {where}.",
        "lost": "Lost: the guest runs at no end, or at both.",
    }
    return what[result.verdict]


def _why(result: DryRun) -> Iterator[str]:
    """What it rests on."""
    yield sentence(result.reason)
    if result.fault:
        did = "struck" if result.fault.struck else "did not strike: no page was sent in that round"
        yield f"The fault {result.fault.fault} {did}."
    if result.comparison:
        yield from _compared(result.comparison)
    if result.survival:
        yield _survived(result.survival)


def _compared(found: Comparison) -> Iterator[str]:
    wrong = f"{found.wrong_pages:,} differ, {found.wrong_states:,} are of the wrong state"
    if not found.wrong_pages and not found.wrong_states:
        wrong = "none differs, nor its state"
    yield f"Compared: {found.pages:,} pages as their guest reads them: {wrong}."
    for it in found.told:
        yield f"  {it.block} page {it.page:#x}: {_state(it.private)}, {_there(it)}"
    more = found.wrong_pages + found.wrong_states - len(found.told)
    if len(found.told) == MOST_TOLD and more > 0:
        yield "  ..."


def _there(page: WrongPage) -> str:
    if page.private == page.private_at_destination:
        return "holds something else at the destination"
    return f"{_state(page.private_at_destination)} at the destination"


def _state(private: bool) -> str:
    return "private" if private else "shared"


def _survived(found: Survival) -> str:
    words = [
        "its pages and states are unchanged" if found.unchanged else "ITS PAGES HAVE CHANGED",
        _RUNS[found.went_on],
    ]
    if found.as_undisturbed is not None:
        same = "as" if found.as_undisturbed else "NOT AS"
        words.append(f"and it is {same} one that was never migrated")
    return f"The guest at the source: {', '.join(words)}."


def _rounds(result: DryRun) -> Table:
    pairs = [(it.planned, it.rehearsed) for it in result.rounds]
    stopped = any(it.stopped for it in (*result.plan.rounds, *result.ledger.rounds))
    return rounds_table(pairs, "sent", stopped=stopped)


def _times(plan: Plan, ledger: Plan) -> Table:
    table = columns("field", "planned", "rehearsed")
    table.add_row("total time", *(_time(it.total_time_ms) for it in (plan, ledger)))
    table.add_row("downtime", *(_time(it.downtime_ms) for it in (plan, ledger)))
    sizes = (units.format_size(it.totals.bytes.total) for it in (plan, ledger))
    table.add_row("sent", *sizes)
    return table


def _time(ms: float | None) -> str:
    return "-" if ms is None else units.format_time(ms)


def _effort(result: DryRun) -> str:
    effort = result.effort
    return (
        f"Moved here in {units.format_time(effort.seconds * 1e3)}:"
        f" {effort.pages_per_s:,.0f} pages/s,"
        f" {units.format_size(effort.line_bytes)} over the line."
    )
