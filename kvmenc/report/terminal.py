"""A plan in a terminal of 80 columns. Text from a capture is printed as it is, never as markup."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvmenc import units
from kvmenc.report.advice import advice_words, interval_words

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import TypeVar

    from rich.console import JustifyMethod

    from kvmenc.plan.result import Guest, Inputs, Plan, PlannedRound

    Item = TypeVar("Item")

__all__ = [
    "Terminal",
    "bullet",
    "capability_words",
    "columns",
    "elided",
    "guest_words",
    "inputs_line",
    "parts_table",
    "print_plan",
    "rate_words",
    "round_name",
    "sentence",
    "verdict_line",
]

_MOST_ROWS = 14
#: Of rounds with a line for each road.
_MOST_ROUNDS_BY_ROAD = 10
_ROADS = ("normal", "zero", "encrypted")

_ROUND_WHOLE = frozenset({"dirty", "road", "bytes", "time"})
#: On a narrower terminal rounds have a column less.
_ALL_COLUMNS_WIDTH = 72

# Columns that hold words; the others hold numbers.
_WORDS = frozenset(
    {"road", "limited by", "gfns", "RAMBlock", "note", "ended by", "field"}
    | {"guest", "actor", "does", "result"}
)


# With these rich fills up the cells of a table, and ends lines that it breaks.
_BLANKS_AT_ENDS = re.compile(r" +$", re.MULTILINE)


class Terminal(Console):
    """A console that leaves a broken pipe to its caller instead of ending the program."""

    def print(self, *objects: Any, **options: Any) -> None:  # noqa: ANN401 - as rich's own
        """Print; into a pipe or a file without blanks at the ends of lines."""
        if self.is_terminal:
            super().print(*objects, **options)
            return
        with self.capture() as printed:
            super().print(*objects, **options)
        self.file.write(_BLANKS_AT_ENDS.sub("", printed.get()))

    def on_broken_pipe(self) -> None:
        """Called by rich while it handles a BrokenPipeError."""
        raise BrokenPipeError


def print_plan(plan: Plan, console: Console) -> None:
    """Verdict first, then why, the rounds, the totals and what all that rests on."""
    style = "bold green" if plan.verdict == "converges" else "bold red"
    console.print(Text(verdict_line(plan), style))
    console.print(Text(f"{sentence(plan.reason)}\n"))
    if plan.interval:
        style = "bold yellow" if plan.interval.knife_edge else ""
        console.print(Text(f"{interval_words(plan.interval)}\n", style))
    console.print(Text(_guest(plan.guest)))
    console.print(Text(f"{inputs_line(plan.inputs)}\n"))
    rounds = _rounds_by_road if plan.guest.private_pages else _rounds
    table = rounds(plan.rounds, plan.guest.page_size)
    if console.width < _ALL_COLUMNS_WIDTH:
        table.columns.pop()  # what limits each round; the bottleneck of all is said below
    console.print(table)
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


def sentence(text: str) -> str:
    """A reason, which has neither a capital nor a full stop, with both."""
    return f"{text[:1].upper()}{text[1:].removesuffix('.')}."


def verdict_line(plan: Plan) -> str:
    """Whether it converges, and after what."""
    sent = units.format_size(plan.totals.bytes.total)
    rounds = f"{len(plan.rounds)} round{'' if len(plan.rounds) == 1 else 's'}"
    if plan.total_time_ms is None or plan.downtime_ms is None:
        tried = units.format_time(sum(one.ms for one in plan.rounds))
        return f"Does not converge: given up after {tried}, {rounds} and {sent} sent."
    total, pause = units.format_time(plan.total_time_ms), units.format_time(plan.downtime_ms)
    return f"Converges: {total} in all, the guest paused for {pause}; {rounds}, {sent} sent."


def _guest(guest: Guest) -> str:
    return f"Guest: {guest_words(guest)}."


def guest_words(guest: Guest) -> str:
    """What was captured, how large it is, and how much of it is private."""
    size = units.format_size(guest.pages * guest.page_size)
    private = {0: "all shared", guest.pages: "all private"}.get(
        guest.private_pages, f"{guest.private_pages / guest.pages * 100:.1f} % private"
    )
    return f"{guest.source}; {size}, {private}"


def inputs_line(inputs: Inputs) -> str:
    """The parameters, a line."""
    limit = inputs.time_limit_ms
    parts = [
        f"max-bandwidth {units.format_bandwidth(inputs.max_bandwidth_bytes_per_s)}",
        f"link {rate_words(inputs.link_bytes_per_s)}",
        f"downtime limit {units.format_time(inputs.downtime_limit_ms)}",
        "no time limit" if limit is None else f"time limit {units.format_time(limit)}",
        *capability_words(inputs),
    ]
    return f"Parameters: {', '.join(parts)}."


def rate_words(bytes_per_s: float) -> str:
    """A network's speed, in bytes as QEMU has it and in bits as networks have it."""
    return f"{units.format_bandwidth(bytes_per_s)} ({units.format_bit_rate(bytes_per_s)})"


def capability_words(inputs: Inputs) -> list[str]:
    """What is not as usual, a few words each."""
    share = inputs.xbzrle_encoded_share
    words = {
        "auto-converge": inputs.auto_converge,
        f"multifd of {inputs.multifd_channels}": inputs.multifd_channels,
        f"xbzrle to {share or 0:.3g} of a page": share,
        "postcopy": inputs.postcopy,
        f"firmware batches of {inputs.private_batch_pages} pages": inputs.private_batch_pages > 1,
        f"send buffer {units.format_size(inputs.send_buffer_bytes)}": inputs.send_buffer_bytes,
    }
    return [text for text, given in words.items() if given]


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


def _rounds(rounds: Sequence[PlannedRound], page_size: int) -> Table:
    """A round to a row: what was dirty when it began, then the bytes sent by road."""
    table = columns("round", "time", "dirty", "normal", "zero", "limited by", whole={"time"})
    for number, one in elided(rounds):
        if one is None:
            table.add_row("...", f"({number} more)")
            continue
        table.add_row(
            round_name(one, number),
            units.format_time(one.ms),
            units.format_size(one.dirty_pages * page_size),
            _size(one.bytes.normal),
            _size(one.bytes.zero),
            one.bottleneck,
        )
    return table


def _rounds_by_road(rounds: Sequence[PlannedRound], page_size: int) -> Table:
    """A round to some rows: what was dirty when it began, then what went each road."""
    table = columns(
        "round", "dirty", "road", "pages", "bytes", "time", "limited by", whole=_ROUND_WHOLE
    )
    for number, one in elided(rounds, _MOST_ROUNDS_BY_ROAD):
        if one is None:
            table.add_row("...", f"({number} more)")
            continue
        dirty = units.format_size(one.dirty_pages * page_size)
        for row, sent in enumerate(_by_road(one)):
            first = (round_name(one, number), dirty) if row == 0 else ("", "")
            table.add_row(*first, *sent, one.bottleneck if row == 0 else "")
    return table


def round_name(one: PlannedRound, number: int) -> str:
    """Its number; the last one of a migration that ends is the stopped guest's."""
    return "stopped" if one.stopped else str(number)


def _by_road(one: PlannedRound) -> list[tuple[str, str, str, str]]:
    """Road, pages, bytes and time of each road that pages went; at least one line."""
    sent = [
        (
            road,
            f"{getattr(one.pages, road):,}",
            _size(getattr(one.bytes, road)),
            units.format_time(getattr(one.ms_by_road, road)),
        )
        for road in _ROADS
        if getattr(one.pages, road)
    ]
    return sent or [("-", "0", "-", units.format_time(one.ms))]


def elided(items: Sequence[Item], most: int = _MOST_ROWS) -> Iterator[tuple[int, Item | None]]:
    """Numbered items; None, with how many, in place of the middle of a long list."""
    skipped, head = len(items) - most, most // 2
    for i, one in enumerate(items):
        if skipped <= 0 or not head <= i < head + skipped:
            yield i + 1, one
        elif i == head:
            yield skipped, None


def _totals_table(plan: Plan) -> Table:
    table = columns("road", "pages", "bytes", "time")
    for road in _ROADS:
        pages, ms = getattr(plan.totals.pages, road), getattr(plan.totals.ms, road)
        time = units.format_time(ms) if pages else "-"
        table.add_row(road, f"{pages:,}", _size(getattr(plan.totals.bytes, road)), time)
    spent = units.format_time(sum(one.ms for one in plan.rounds))
    table.add_row("all", f"{plan.totals.pages.total:,}", _size(plan.totals.bytes.total), spent)
    return table


def _size(size_bytes: int) -> str:
    return units.format_size(size_bytes) if size_bytes else "-"


def parts_table(parts: Iterable[tuple[str, bool, str]]) -> Table:
    """What was real: a part's name, whether it was, and by what."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, real, how in parts:
        table.add_row(name, Text("real", "green") if real else Text("fake", "yellow"), Text(how))
    return table


def bullet(line: str) -> Table:
    """A line of a list, wrapped under itself."""
    row = Table.grid(padding=(0, 1, 0, 0))
    row.add_row("-", Text(line))
    return row
