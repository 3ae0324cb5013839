"""What the search over sync orders found, in a terminal of 80 columns."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

from rich.padding import Padding
from rich.text import Text

from kvmenc.ordering.guests import Setting, Xbzrle
from kvmenc.ordering.protocols import PROTOCOLS, Clearing, Protocol
from kvmenc.report.terminal import bullet, columns

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.table import Table

    from kvmenc.ordering.claims import Answer, Tested
    from kvmenc.ordering.search import Cell, GuestOrder, OrderCheck
    from kvmenc.ordering.timeline import Timeline, TimelineStep

__all__ = ["print_order_check", "print_timeline"]

#: The timelines that everybody should have seen.
_SHOWN = (
    (Protocol(private_first=True, flips_dirty=False), "flip, announce, write"),
    (Protocol(flips_dirty=False), "convert in place, flip, announce"),
)
_KINDS = tuple((first, flips) for first in (False, True) for flips in (True, False))


def print_order_check(found: OrderCheck, console: Console, *, timelines: bool) -> None:
    """Verdict, tables, what no host can do, claims, and timelines: two of them, or all."""
    style = "bold red" if found.wrong_by_own else "bold green"
    console.print(Text(_verdict(found), style))
    console.print(Text(_size(found)))
    cells = _Cells(found)
    for clearing in Clearing:
        console.print(Text(f"\nCLEAR {clearing}", "bold"))
        console.print(_table(found, cells, clearing))
    for line in _notes(found):
        console.print(bullet(line))
    _print_limits(found, cells, console)
    console.print(Text("\nxbzrle: shared pages sent as differences", "bold"))
    for line in _xbzrle(found):
        console.print(bullet(line))
    console.print(Text("\nWhat was claimed in 2019", "bold"))
    for answer in found.answers:
        _print_answer(answer, console)
    for timeline in found.timelines if timelines else _best_known(found):
        console.print()
        print_timeline(timeline, console)
    if not timelines:
        told = len(found.timelines)
        console.print(Text(f"\n--timelines shows all {told}, --svg DIR draws them."))


def _verdict(found: OrderCheck) -> str:
    if found.wrong_by_own:
        return f"kvmenc's sync: {found.wrong_by_own:,} runs end wrong though a host could know."
    return "kvmenc's sync: no run ends wrong where any host could be right."


def _size(found: OrderCheck) -> str:
    settings = len(found.settings)
    return (
        f"Searched: {len(found.protocols)} protocols, {len(found.orders)} guests,"
        f" {settings} setting{'s' if settings > 1 else ''}, up to {found.live_rounds} live rounds:"
        f" {found.states:,} states and {found.steps:,} steps stand for {found.runs:,} runs."
    )


class _Cells:
    """Cells by what they are of; always with as many live rounds as there are."""

    def __init__(self, found: OrderCheck) -> None:
        last = [it for it in found.cells if it.live_rounds == found.live_rounds]
        self._cells = {(it.protocol, it.order, it.setting): it for it in last}

    def of(self, protocol: Protocol, order: GuestOrder) -> Cell:
        """One page, one vCPU."""
        return self._cells[protocol.name, order.name, Setting.ALONE]

    def wrong_in(self, protocol: Protocol, order: GuestOrder) -> set[str]:
        """The settings in which runs end wrong."""
        key = protocol.name, order.name
        return {
            it.setting for it in self._cells.values() if (it.protocol, it.order) == key and it.wrong
        }

    def least_lost(self, order: GuestOrder) -> int:
        """Of all protocols the fewest runs that end wrong, by whoever's fault."""
        alone = [it for it in self._cells.values() if it.setting == Setting.ALONE]
        return min(it.wrong + it.no_host for it in alone if it.order == order.name)


def _table(found: OrderCheck, cells: _Cells, clearing: Clearing) -> Table:
    """Guests down, protocols across."""
    protocols = [
        protocol
        for first, flips in _KINDS
        if (protocol := Protocol(first, flips, clearing)) in PROTOCOLS
    ]
    names = [f"{'P,D' if it.private_first else 'D,P'}{' +' * it.flips_dirty}" for it in protocols]
    table = columns("guest", *names, "of runs")
    for order in found.orders:
        mark = " (a)" if order.expects_old_bytes else "" if order.announces_first else " (b)"
        counts = [_count(cells, protocol, order) for protocol in protocols]
        table.add_row(f"{order.name}{mark}", *counts, f"{cells.of(protocols[0], order).runs:,}")
    return table


def _count(cells: _Cells, protocol: Protocol, order: GuestOrder) -> str:
    cell, wrong_in = cells.of(protocol, order), cells.wrong_in(protocol, order)
    wrong = cell.wrong + (cell.no_host if order.expects_old_bytes else 0)
    if wrong or not wrong_in:
        return f"{wrong:,}"
    return "0 *" if wrong_in == {Setting.SECOND_WRITER} else "0 **"


def _notes(found: OrderCheck) -> Iterator[str]:
    yield (
        f"Runs that end wrong: one page, one vCPU, {found.live_rounds} live rounds, the guest"
        " stopped anywhere. D,P: the dirty log is read first, then the private state. P,D: the"
        " other way round. +: pages that flipped are made dirty."
    )
    if Setting.SECOND_WRITER in found.settings:
        yield (
            "*: wrong only if another vCPU writes the page in the middle of the conversion, so"
            " before it is announced. **: wrong in another setting."
        )
    yield (
        "(a): no architecture promises bytes that were there before a flip; so these cells are"
        " outside the verdict. Counted is every run in which they are lost."
    )
    yield "(b): the guest writes before it announces; stops that no host can get right are below."
    own = {it.name for it in found.protocols if it.own}
    unpromised = sum(it.not_promised for it in found.cells if it.protocol in own)
    yield (
        f"In {unpromised:,} runs of kvmenc's sync the guest reads other bytes of a page that was"
        " converted and not written since: nothing is promised of those, so they are not counted."
    )


def _print_limits(found: OrderCheck, cells: _Cells, console: Console) -> None:
    console.print(Text("\nWhat no host can get right", "bold"))
    table = columns("guest", "lost by kvmenc", "least by any", "of runs")
    for order in found.orders:
        if not order.announces_first:
            cell, least = cells.of(Protocol(), order), cells.least_lost(order)
            table.add_row(order.name, f"{cell.no_host:,}", f"{least:,}", f"{cell.runs:,}")
    console.print(table)
    for order in found.orders:
        if order.seen_in and not order.announces_first:
            console.print(bullet(f'"{order.name}" is seen in {order.seen_in}.'))
    console.print(
        bullet(
            "The guest is stopped between writing under a new key and announcing it. Every protocol"
            " loses such runs, and none could be right: two guests may have shown the host the"
            " same, and need different roads:"
        )
    )
    for line in _contradictions(found):
        console.print(bullet(line))
    console.print(bullet("The rule that closes it is the guest's: announce first, then write."))


def _contradictions(found: OrderCheck) -> Iterator[str]:
    """The shortest for each thing that was seen, of pages that were private."""
    private = [it for it in found.contradictions if it.private_at_first]
    for seen, same in groupby(private, key=lambda it: it.seen):
        it = next(same)
        yield (
            f'seen: {", ".join(seen)}. "{it.by_firmware[0]}" after {it.by_firmware[1]} of its steps'
            f' needs the encrypted road, "{it.raw[0]}" after {it.raw[1]} needs it raw.'
        )


def _xbzrle(found: OrderCheck) -> Iterator[str]:
    for it in found.xbzrle:
        if it.live_rounds == found.live_rounds:
            evicts = it.xbzrle == Xbzrle.EVICTS
            kept = "the page leaves the cache" if evicts else "it stays in the cache"
            yield (
                f"{kept} when it goes the encrypted road: {it.wrong:,} of {it.runs:,} runs end"
                f" wrong ({it.order}; {it.live_rounds} live rounds)."
            )


def _print_answer(answer: Answer, console: Console) -> None:
    console.print(bullet(f'{answer.who}: "{answer.claim}": {answer.verdict}; {answer.because}.'))
    for tested in answer.tested:
        console.print(Padding(bullet(_tested(tested)), (0, 0, 0, 4)))


def _tested(tested: Tested) -> str:
    good, bad = len(tested.holds_for), len(tested.fails_for)
    worst = f": {tested.fails_for[0]}" + (", ..." if bad > 1 else "") if bad else ""
    return f"{tested.protocol}: right for {good} guests, wrong for {bad}{worst}"


def _best_known(found: OrderCheck) -> Iterator[Timeline]:
    for protocol, order in _SHOWN:
        yield from (
            it for it in found.timelines if (it.protocol, it.order) == (protocol.name, order)
        )


def print_timeline(timeline: Timeline, console: Console) -> None:
    """Step by step, guest to the left and host to the right of what happens."""
    console.print(Text(f"{timeline.protocol} | {timeline.order}", "bold"))
    first = ", ".join("private" if it else "shared" for it in timeline.private_at_first)
    console.print(Text(f"{timeline.setting}; at first {first}"))
    table = columns("round", "actor", "does", "result")
    for step in timeline.steps:
        table.add_row(_round(step), step.actor, step.does, step.result)
    console.print(table)
    page = f"page {timeline.page}" if len(timeline.private_at_first) > 1 else "the page"
    after = f" after it does {', '.join(timeline.then)}" if timeline.then else ""
    console.print(
        Text(
            f"The guest should read {timeline.source_reads} from {page}{after}, and reads"
            f" {timeline.destination_reads}."
        )
    )


def _round(step: TimelineStep) -> str:
    return "stopped" if step.round is None else str(step.round)
