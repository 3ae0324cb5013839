"""The whole question: every protocol against every guest, in every setting."""

from __future__ import annotations

import signal
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from kvmenc.ordering.claims import Answer, answers
from kvmenc.ordering.explore import Explorer
from kvmenc.ordering.guests import OLD_BYTES_ORDER, ORDERS, XBZRLE_ORDER, Setting, Xbzrle, case_of
from kvmenc.ordering.hostcode import host_code
from kvmenc.ordering.judge import Judge, Outcome
from kvmenc.ordering.limits import Contradiction, contradictions
from kvmenc.ordering.protocols import ASKED_ONCE, OWN, PROTOCOLS
from kvmenc.ordering.timeline import Timeline, shortest_wrong_run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvmenc.ordering.guests import Order
    from kvmenc.ordering.protocols import Protocol

__all__ = ["FULL", "QUICK", "Bounds", "Cell", "GuestOrder", "OrderCheck", "SyncProtocol", "check"]


@dataclass(frozen=True, slots=True)
class Bounds:
    """How far a search goes.

    Attributes:
        live_rounds: the most there are before the guest is stopped.
        settings: how many pages and vCPUs there are.
    """

    live_rounds: int
    settings: tuple[Setting, ...]


FULL = Bounds(3, tuple(Setting))
QUICK = Bounds(2, (Setting.ALONE, Setting.CUT))


class SyncProtocol(Struct, frozen=True):
    """A host's protocol.

    Attributes:
        name: it, in words.
        own: kvmenc's sync is this one.
        calls: what its code asked of the kernel, in order, when it was run.
    """

    name: str
    own: bool
    calls: list[str]


class GuestOrder(Struct, frozen=True):
    """What a guest does.

    Attributes:
        name: it, in words.
        announces_first: the flip comes before the write that needs it.
        expects_old_bytes: the guest reads what a page held before its flip.
        seen_in: the kernel or document that has such a guest.
    """

    name: str
    announces_first: bool
    expects_old_bytes: bool
    seen_in: str


class Cell(Struct, frozen=True):
    """All runs of one protocol against one guest, each interleaving counted.

    Attributes:
        protocol, order, setting, xbzrle: which.
        live_rounds: exactly so many, then the stopped one.
        right: how many runs in which the guest reads at the destination what it would have read.
        not_promised: how many in which it reads other bytes where no guest may expect any.
        no_host: how many wrong ones that a last complete sending, by all that the kernel knows,
            would leave wrong too.
        wrong: how many wrong ones of which a host could have known.
    """

    protocol: str
    order: str
    setting: str
    xbzrle: str
    live_rounds: int
    right: int
    not_promised: int
    no_host: int
    wrong: int

    @property
    def runs(self) -> int:
        """All of them."""
        return self.right + self.not_promised + self.no_host + self.wrong


class OrderCheck(Struct, frozen=True, kw_only=True):
    """What a search found.

    Attributes:
        live_rounds, settings: its bounds; the rounds before the guest is stopped, at most.
        protocols, orders: hosts and guests.
        states, steps: how many there are, merged; and from one to another.
        runs: interleavings they stand for.
        cells: all outcomes.
        xbzrle: those with xbzrle, where the encrypted road evicts a page from the cache and where
            it does not.
        timelines: of each protocol and order that a run went wrong with, the shortest such run.
        contradictions: guests that look the same to any host and need different roads.
        answers: what became of the claims of 2019.
        wrong_by_own: how many runs ended wrong with kvmenc's protocol: in ``cells``, and in
            ``xbzrle`` with eviction; those of guests that expect old bytes apart.
    """

    schema: Literal["kvmenc.check-order/1"] = "kvmenc.check-order/1"
    live_rounds: int
    settings: list[str]
    protocols: list[SyncProtocol]
    orders: list[GuestOrder]
    states: int
    steps: int
    runs: int
    cells: list[Cell]
    xbzrle: list[Cell]
    timelines: list[Timeline]
    contradictions: list[Contradiction]
    answers: list[Answer]
    wrong_by_own: int


@dataclass(slots=True)
class _Found:
    """What a search found of one protocol."""

    cells: list[Cell]
    timelines: list[Timeline]
    states: int = 0
    steps: int = 0


def check(bounds: Bounds, progress: Callable[[float], None] = lambda _: None) -> OrderCheck:
    """Search all there is within the bounds, on as many processors as there are.

    Args:
        bounds: how far.
        progress: called with the share done, 0 to 1.
    """
    protocols = (*PROTOCOLS, ASKED_ONCE)
    found = []
    with _processes() as pool:
        with _interrupts_held():
            searches = pool.map(_search, protocols, [bounds] * len(protocols))
        for one in searches:
            found.append(one)
            progress(len(found) / len(protocols))
    cells = [cell for one in found for cell in one.cells]
    xbzrle = [cell for kind in (Xbzrle.EVICTS, Xbzrle.KEEPS) for cell in _xbzrle(kind, bounds)]
    own = {it.name for it in OWN}
    return OrderCheck(
        live_rounds=bounds.live_rounds,
        settings=list(bounds.settings),
        protocols=[_described(protocol) for protocol in protocols],
        orders=[
            GuestOrder(it.name, it.announces_first, it.expects_old_bytes, it.seen_in)
            for it in ORDERS
        ],
        states=sum(one.states for one in found),
        steps=sum(one.steps for one in found),
        runs=sum(cell.runs for cell in cells),
        cells=cells,
        xbzrle=xbzrle,
        timelines=[it for one in found for it in one.timelines],
        contradictions=contradictions((*ORDERS, OLD_BYTES_ORDER)),
        answers=answers(_wrong(cells)),
        wrong_by_own=sum(
            it.wrong for it in cells + xbzrle if it.protocol in own and it.xbzrle != Xbzrle.KEEPS
        ),
    )


@contextmanager
def _processes() -> Iterator[ProcessPoolExecutor]:
    """Workers that die of a terminal's Ctrl-C in silence; what none has begun is then dropped."""
    pool = ProcessPoolExecutor(initializer=_die_of_interrupts)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """While workers are started: one that is not yet ready would tell of a Ctrl-C at length.

    An executor that is interrupted between its first worker and its last would never end, too.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _die_of_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _described(protocol: Protocol) -> SyncProtocol:
    code = host_code(protocol, 1).first
    return SyncProtocol(protocol.name, protocol in OWN, [*code.calls, "READ", *code.after])


def _wrong(cells: list[Cell]) -> dict[tuple[str, str, str], int]:
    wrong: Counter[tuple[str, str, str]] = Counter()
    for it in cells:
        wrong[it.protocol, it.order, it.setting] += it.wrong
    return dict(wrong)


def _search(protocol: Protocol, bounds: Bounds) -> _Found:
    """One protocol against every guest; one process does this."""
    found = _Found([], [])
    for order in ORDERS:
        told = False
        for setting in bounds.settings:
            cells = list(_explore(found, protocol, order, setting, bounds.live_rounds))
            found.cells += cells
            if not told and any(cell.wrong for cell in cells):
                found.timelines.append(_timeline(protocol, order, setting, bounds.live_rounds))
                told = True
    return found


def _explore(
    found: _Found, protocol: Protocol, order: Order, setting: Setting, live_rounds: int
) -> Iterator[Cell]:
    case = case_of(order, setting)
    explorer = Explorer(case, host_code(protocol, case.npages), live_rounds)
    yield from _cells(protocol, explorer)
    found.states += explorer.states
    found.steps += explorer.steps


def _cells(protocol: Protocol, explorer: Explorer) -> Iterator[Cell]:
    case, judge = explorer.case, Judge(explorer.case)
    for ending in explorer.endings():
        outcomes = judge.outcomes(ending.bucket)
        counts = [int(ending.bucket.runs[outcomes == it].sum()) for it in Outcome]
        yield Cell(
            protocol.name, case.order.name, case.setting, case.xbzrle, ending.live_rounds, *counts
        )


def _timeline(protocol: Protocol, order: Order, setting: Setting, live_rounds: int) -> Timeline:
    case = case_of(order, setting)
    code = host_code(protocol, case.npages)
    found = shortest_wrong_run(protocol.name, case, code, live_rounds)
    assert found
    return found


def _xbzrle(kind: Xbzrle, bounds: Bounds) -> Iterator[Cell]:
    protocol = OWN[0]
    case = case_of(XBZRLE_ORDER, Setting.ALONE, kind)
    yield from _cells(protocol, Explorer(case, host_code(protocol, 1), bounds.live_rounds))
