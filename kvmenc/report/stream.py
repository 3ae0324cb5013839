"""What is in a migration stream, in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from rich.text import Text

from kvmenc import units
from kvmenc.report.terminal import bullet, columns, elided

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import Console
    from rich.table import Table

    from kvmenc.stream.result import (
        AgainstReport,
        BlockTotals,
        BytesByKind,
        PageHistory,
        SendingCount,
        StreamReport,
        StreamRound,
        WrongRange,
    )

__all__ = ["print_stream"]

_BYTES = {
    "zero": "zero pages",
    "normal": "normal pages",
    "xbzrle": "pages by xbzrle",
    "compressed": "compressed pages",
    "encrypted": "encrypted pages",
    "session": "firmware's session",
    "private_state": "private state",
    "cpu_states": "encrypted registers",
    "framing": "framing of sections and calls",
    "devices": "devices",
    "description": "description of the devices",
    "unread": "not read",
}


def print_stream(report: StreamReport, console: Console) -> None:
    """What it is, the answer to --against, then blocks, rounds, sendings, bytes, histories."""
    console.print(Text(f"Stream {report.source}", "bold"))
    for line in _origin(report):
        console.print(Text(line))
    if report.against:
        _print_against(report.against, report.page_size, console)
    _heading(f"Pages sent, of {units.format_size(report.page_size)}", console)
    console.print(_blocks(report.blocks))
    _heading(_rounds_heading(report), console)
    console.print(_rounds(report.rounds, report.rounds_total))
    _heading("How often a page was sent", console)
    console.print(_sendings(report.sendings))
    _heading("Bytes of the file", console)
    console.print(_bytes(report.bytes))
    for it in report.history:
        _print_history(it, console)
    if notes := list(_notes(report)):
        _heading("Notes", console)
    for line in notes:
        console.print(bullet(line))


def _heading(text: str, console: Console) -> None:
    console.print(Text(f"\n{text}", "bold"))


def _origin(report: StreamReport) -> Iterator[str]:
    ram = units.format_size(report.ram_bytes)
    yield f"Of machine {report.machine or '(not named)'}; {ram} of RAM; {_encrypted(report)}."
    size = units.format_size(report.bytes_total)
    if report.why_unread:
        yield f"Read to {size}, past the end of RAM: {report.why_unread}."
    else:
        yield f"Read to the last of its {report.bytes_total:,} bytes ({size})."


def _encrypted(report: StreamReport) -> str:
    if not report.pages.encrypted and not report.private_state:
        return "nothing encrypted"
    return f"encrypted records of dialect {' or '.join(report.dialects)}"


def _blocks(blocks: Sequence[BlockTotals]) -> Table:
    """Pages by road; xbzrle and compressed ones went the normal road."""
    table = columns("RAMBlock", "pages", "sent", "normal", "zero", "encrypted", "again")
    for number, it in elided(blocks):
        if it is None:
            table.add_row(f"({number} more)")
        else:
            table.add_row(Text(it.name), *(f"{n:,}" for n in _numbers(it)))
    if len(blocks) > 1:
        sums = (sum(each) for each in zip(*map(_numbers, blocks), strict=True))
        table.add_row("all", *(f"{n:,}" for n in sums))
    return table


def _numbers(it: BlockTotals) -> list[int]:
    normal = it.pages.normal + it.pages.xbzrle + it.pages.compressed
    again = normal + it.pages.zero + it.pages.encrypted - it.sent_pages
    return [it.npages, it.sent_pages, normal, it.pages.zero, it.pages.encrypted, again]


def _rounds_heading(report: StreamReport) -> str:
    calls = f"{report.calls:,} call{'s' if report.calls != 1 else ''}"
    passes = f"{report.passes:,} pass{'es' if report.passes != 1 else ''} over RAM"
    return f"Rounds: at least {report.rounds_total:,}, in {calls} and {passes}"


def _rounds(rounds: Sequence[StreamRound], total: int) -> Table:
    """A round to a row: pages by road, bytes, and pages that an earlier round has sent."""
    table = columns("round", "calls", "normal", "zero", "encrypted", "bytes", "sent before")
    for number, it in elided(rounds):
        if it is None:
            table.add_row("...", f"({number} more)")
            continue
        roads = (f"{n:,}" for n in (it.pages.normal, it.pages.zero, it.pages.encrypted))
        size = units.format_size(it.bytes.total) if it.bytes.total else "-"
        name = "stopped" if it.stopped else str(number)
        table.add_row(name, f"{it.calls:,}", *roads, size, f"{it.sent_before_pages:,}")
    if total > len(rounds):
        table.add_row("...", f"({total - len(rounds):,} more)")
    return table


def _sendings(sendings: Sequence[SendingCount]) -> Table:
    table = columns("times", "pages")
    for number, it in elided(sendings):
        if it is None:
            table.add_row("...", f"({number} more)")
        else:
            table.add_row(f"{it.times:,}" if it.times < 255 else "255 or more", f"{it.pages:,}")
    return table


def _bytes(sizes: BytesByKind) -> Table:
    """Whatever there is of, and the sum."""
    table = columns("field", "bytes", "size")
    numbers: dict[str, int | None] = msgspec.to_builtins(sizes)
    for name, number in numbers.items():
        if number:
            table.add_row(_BYTES[name], f"{number:,}", units.format_size(number))
    total = sum(number or 0 for number in numbers.values())
    table.add_row("all", f"{total:,}", units.format_size(total))
    return table


def _print_history(it: PageHistory, console: Console) -> None:
    times = f"{it.sends:,} time{'s' if it.sends != 1 else ''}"
    _heading(f"Page at offset {it.offset:#x} of {it.block}, sent {times}", console)
    table = columns("round", "call", "at offset", "as", "bytes", "content")
    for number, one in elided(it.sendings):
        if one is None:
            table.add_row("...", f"({number} more)")
            continue
        same = {None: "-", True: "as before", False: "changed"}[one.unchanged]
        where = (str(one.round), str(one.call), f"{one.offset:#x}")
        table.add_row(*where, one.kind, f"{one.bytes:,}", same)
    if it.sends:
        console.print(table)


def _print_against(it: AgainstReport, page_size: int, console: Console) -> None:
    style = "bold red" if it.wrong_pages else "bold green"
    wrong = f"{it.wrong_pages:,} of {it.compared_pages:,} pages took the wrong road"
    console.print(Text(f"\n{wrong}, by {it.source} ({it.capture}).", style))
    if not it.wrong_pages:
        return
    console.print(bullet(f"private, sent in the clear: {it.private_in_clear_pages:,} pages"))
    console.print(bullet(f"shared, sent encrypted: {it.shared_encrypted_pages:,} pages"))
    console.print(bullet(f"wrong the last time, too: {it.at_last_pages:,} pages"))
    console.print(Text())
    console.print(_wrong(it.ranges, page_size))
    if it.ranges_left_out:
        console.print(Text(f"({it.ranges_left_out:,} more ranges)"))


def _wrong(ranges: Sequence[WrongRange], page_size: int) -> Table:
    table = columns("RAMBlock", "offset", "pages", "is", "went", "the last time")
    for number, it in elided(ranges):
        if it is None:
            table.add_row("...", f"({number} more)")
            continue
        went = "in the clear" if it.was == "private" else "encrypted"
        last = "too" if it.at_last else "right"
        where = f"{it.page * page_size:#x}"
        table.add_row(Text(it.block), where, f"{it.npages:,}", it.was, went, last)
    return table


def _notes(report: StreamReport) -> Iterator[str]:
    if it := report.session:
        yield (
            f"session: policy {it.policy:#x}, certificate of {it.pdh_bytes:,} bytes, session data "
            f"of {it.session_bytes:,}"
        )
    if state := report.private_state:
        if state.pages is None:
            shared = f"{state.shared_pages:,} shared gfns in {state.ranges:,} ranges"
            yield f"private state: a list of {shared}; the others are private"
        else:
            yield (
                f"private state: {state.private_pages:,} of {state.pages:,} gfns private, in "
                f"{state.ranges:,} bitmaps"
            )
    if report.encrypted_vcpus:
        yield f"registers of {report.encrypted_vcpus:,} vCPUs are encrypted"
    yield from _elsewhere(report)
    if report.twice_in_a_call_pages:
        yield (
            f"{report.twice_in_a_call_pages:,} times a page came again within one call, which no "
            "QEMU does in precopy"
        )
    if report.against:
        yield "the capture knows what was private when it was made: a page may have flipped since"
        if unknown := report.against.unknown_blocks:
            yield f"not in the capture: {', '.join(unknown)}"


def _elsewhere(report: StreamReport) -> Iterator[str]:
    """What a migration has, and this file has not."""
    if report.rounds_total == len(report.rounds) and not report.rounds[-1].stopped:
        yield "no round with the guest stopped: a background snapshot, of RAM as it was at first"
    if report.flushes:
        yield "multifd: the pages went over connections of their own, and are not in this file"
    elif never := sum(it.npages - it.sent_pages for it in report.blocks):
        yield (
            f"{never:,} pages were never sent: multifd has connections of its own for them; what "
            "is shared (x-ignore-shared), unplugged, or hinted as free stays where it is"
        )
