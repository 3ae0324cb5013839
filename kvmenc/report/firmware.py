"""How quick the firmware is, in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc import units
from kvmenc.report.terminal import bullet, columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from kvmenc.probe.clock import Rate
    from kvmenc.probe.firmware import FirmwareMeasure

__all__ = ["print_firmware"]


def print_firmware(measure: FirmwareMeasure, console: Console) -> None:
    """What to type first, then what was measured, then what it rests on."""
    rate = units.format_page_rate(measure.private_rate_pps)
    says = f"Firmware ({measure.backend}): {rate}, the slower of sending and receiving"
    console.print(Text(says, "bold"))
    typed = rate.replace(" pages/s", "pps")
    console.print(Text(f"For a plan: kvmenc plan --private-rate {typed}\n"))
    console.print(_table(measure))
    console.print(Text())
    for note in _notes(measure):
        console.print(bullet(note))


def _table(measure: FirmwareMeasure) -> Table:
    table = columns("way", "pages/s", "slow", "quick", "p50 ms", "p99 ms", "pages")
    ways = {
        "SEND": measure.send,
        "RECEIVE": measure.receive,
        "SEND, batches": measure.batch_send,
        "RECEIVE, batches": measure.batch_receive,
    }
    for name, rate in ways.items():
        if rate is not None:
            table.add_row(name, *_cells(rate))
    return table


def _cells(rate: Rate) -> Iterator[str]:
    for pages_per_s in (rate.pages_per_s, rate.slow_pages_per_s, rate.quick_pages_per_s):
        yield units.format_page_rate(pages_per_s).removesuffix(" pages/s")
    yield f"{rate.latency_p50_ms:.2f}"
    yield f"{rate.latency_p99_ms:.2f}"
    yield f"{rate.pages:,}"


def _notes(measure: FirmwareMeasure) -> Iterator[str]:
    yield (
        f"pages/s: median over {measure.send.batches} batches; slow, quick: the tenth slowest and"
        " quickest of them; p50, p99: of one command"
    )
    if measure.batch_send is not None:
        pages = measure.batch_send.pages_per_command
        yield f"batches: {pages} pages in one KVM_CSV_COMMAND_BATCH; QEMU hands over up to 4094"
    yield (
        f"a page on the wire: header {measure.header_bytes} + contents {measure.contents_bytes} ="
        f" {measure.wire_bytes} bytes, before the stream's own headers"
    )
    yield _shared(measure)
    yield _contents(measure)


def _shared(measure: FirmwareMeasure) -> str:
    others = measure.other_guests
    guests = "" if others is None else f"; other SEV guests here: {others}"
    if measure.steady:
        return (
            "the rate was steady: no sign of another user of the firmware (one that used it all"
            f" the time alike would show as a lower rate only){guests}"
        )
    return (
        "the rate was not steady: something else used the firmware or this machine meanwhile;"
        f" measure again when it is idle{guests}"
    )


def _contents(measure: FirmwareMeasure) -> str:
    contents = measure.contents
    if contents.equal is None:
        return f"contents: {contents.how}"
    answer = "all as sent" if contents.equal else "NOT as sent"
    return f"contents: {contents.compared_pages} pages compared by {contents.how}: {answer}"
