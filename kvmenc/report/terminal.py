"""A plan in a terminal of 80 columns. Text from a capture is printed as it is, never as markup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvmenc import units
from kvmenc.report.advice import advice_words, interval_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from typing import TypeVar

    from rich.console import JustifyMethod

    from kvmenc.plan.result import Guest, Inputs, Plan, PlannedRound

    Item = TypeVar("Item")

__all__ = ["Terminal", "bullet", "columns", "elided", "print_plan"]

_MOST_ROWS = 14
_HEAD_ROWS = 7

# Columns that hold words; the others hold numbers.
_WORDS = frozenset({"road", "limited by", "gfns", "RAMBlock", "note", "ended by", "field"})


class Terminal(Console):
    """A console that leaves a broken pipe to its caller instead of ending the program."""

    def on_broken_pipe(self) -> None:
        """Called by rich while it handles a BrokenPipeError."""
        raise BrokenPipeError


def print_plan(plan: Plan, console: Console) -> None:
    """Verdict first, then why, the rounds, the totals and what all that rests on."""
    style = "bold green" if plan.verdict == "converges" else "bold red"
    console.print(Text(_verdict(plan), style))
    console.print(Text(f"{plan.reason[0].upper()}{plan.reason[1:]}.\n"))
    if plan.interval:
        console.print(Text(f"{interval_words(plan.interval)}\n"))
    console.print(Text(_guest(plan.guest)))
    console.print(Text(f"{_inputs(plan.inputs)}\n"))
    console.print(_rounds_table(plan.rounds, plan.guest.page_size))
    console.print(Text())
    console.print(_totals_table(plan))
    console.print(Text(f"\nBottleneck: the {plan.totals.bottleneck}."))
    if plan.advice:
        heading, lines = advice_words(plan.advice)
        console.print(Text(f"\n{heading}"))
        for line in lines:
            console.print(bullet(line))
        console.print(Text())
    for line in plan.assumptions:
        console.print(bullet(line))


def _verdict(plan: Plan) -> str:
    sent = units.format_size(plan.totals.bytes.total)
    rounds = f"{len(plan.rounds)} round{'s' if len(plan.rounds) > 1 else ''}"
    if plan.total_time_ms is None or plan.downtime_ms is None:
        tried = units.format_time(sum(one.ms for one in plan.rounds))
        return f"Does not converge: given up after {tried}, {rounds} and {sent} sent."
    total, pause = units.format_time(plan.total_time_ms), units.format_time(plan.downtime_ms)
    return f"Converges: {total} in all, the guest paused for {pause}; {rounds}, {sent} sent."


def _guest(guest: Guest) -> str:
    size = units.format_size(guest.pages * guest.page_size)
    return f"Guest: {guest.source}; {size}, {guest.private_pages / guest.pages:.1%} private."


def _inputs(inputs: Inputs) -> str:
    limit = inputs.time_limit_ms
    return (
        f"Parameters: max-bandwidth {units.format_bandwidth(inputs.max_bandwidth_bytes_per_s)}, "
        f"link {units.format_bit_rate(inputs.link_bytes_per_s)}, "
        f"downtime limit {units.format_time(inputs.downtime_limit_ms)}, "
        f"{'no time limit' if limit is None else 'time limit ' + units.format_time(limit)}."
    )


def columns(*names: str, whole: Collection[str] = ()) -> Table:
    """An empty table without lines: numbers to the right, words to the left.

    Args:
        names: the columns' headings.
        whole: columns that are never wrapped.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for name in names:
        justify: JustifyMethod = "left" if name in _WORDS else "right"
        table.add_column(name, justify=justify, overflow="fold", no_wrap=name in whole)
    return table


def _rounds_table(rounds: Sequence[PlannedRound], page_size: int) -> Table:
    """A round to a row: what was dirty when it began, then the bytes sent by road."""
    table = columns(
        "round", "time", "dirty", "private", "normal", "zero", "encrypted", "limited by"
    )
    for number, one in elided(rounds):
        if one is None:
            table.add_row("...", f"({number} more)")
            continue
        table.add_row(
            "stopped" if one.stopped else str(number),
            units.format_time(one.ms),
            units.format_size(one.dirty_pages * page_size),
            f"{one.private_pages / (one.dirty_pages or 1):.1%}",
            _size(one.bytes.normal),
            _size(one.bytes.zero),
            _size(one.bytes.encrypted),
            one.bottleneck,
        )
    return table


def elided(items: Sequence[Item]) -> Iterator[tuple[int, Item | None]]:
    """Numbered items; None, with how many, in place of the middle of a long list."""
    skipped = len(items) - _MOST_ROWS
    for i, one in enumerate(items):
        if skipped <= 0 or not _HEAD_ROWS <= i < _HEAD_ROWS + skipped:
            yield i + 1, one
        elif i == _HEAD_ROWS:
            yield skipped, None


def _totals_table(plan: Plan) -> Table:
    table = columns("road", "pages", "bytes", "time")
    totals = plan.totals
    for road in ("normal", "zero", "encrypted"):
        pages, ms = getattr(totals.pages, road), getattr(totals.ms, road)
        time = units.format_time(ms) if pages else "-"
        table.add_row(road, f"{pages:,}", _size(getattr(totals.bytes, road)), time)
    spent = units.format_time(sum(one.ms for one in plan.rounds))
    table.add_row("all", f"{totals.pages.total:,}", _size(totals.bytes.total), spent)
    return table


def _size(size_bytes: int) -> str:
    return units.format_size(size_bytes) if size_bytes else "-"


def bullet(line: str) -> Table:
    """A line of a list, wrapped under itself."""
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row("-", Text(line))
    return row
