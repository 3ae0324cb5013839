"""The shortest run that ends wrong, told step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from msgspec import Struct

from kvmenc.ordering.explore import Bucket, Explorer, page_of, progress_of
from kvmenc.ordering.hostcode import Call
from kvmenc.ordering.judge import Judge, Outcome
from kvmenc.ordering.pages import Act, unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.ordering.explore import HostMove
    from kvmenc.ordering.guests import Case
    from kvmenc.ordering.hostcode import HostCode
    from kvmenc.ordering.pages import States

__all__ = ["Timeline", "TimelineStep", "shortest_wrong_run"]

_NOT_SENT = "not dirty: not sent"


class TimelineStep(Struct, frozen=True):
    """One step.

    Attributes:
        round: which live round, counted from 1; None once the guest is stopped.
        actor: ``host`` or ``vCPU 0``, ``vCPU 1``.
        does: the step.
        result: what it came to, page by page where there are several.
    """

    round: int | None
    actor: str
    does: str
    result: str


class Timeline(Struct, frozen=True):
    """A run that ends wrong; none with fewer live rounds, or with as many and fewer guest moves.

    Attributes:
        protocol, order, setting: whose run it is.
        live_rounds: how many it has.
        private_at_first: which pages are.
        steps: from the first to the last.
        page: the number of the one that arrives wrong, from 0.
        then: what the guest still does to it at the destination before it reads.
        source_reads: v is what was written last; s(...) is encrypted with the source guest's key,
            s'(...) decrypted.
        destination_reads: likewise, with d for the destination guest's key.
    """

    protocol: str
    order: str
    setting: str
    live_rounds: int
    private_at_first: list[bool]
    steps: list[TimelineStep]
    page: int
    then: list[str]
    source_reads: str
    destination_reads: str

    @property
    def guest_moves(self) -> int:
        """How many steps are the guest's."""
        return sum(step.actor != "host" for step in self.steps)


class _Made(NamedTuple):
    """A move of a path: of a vCPU, or of the host by one of its choices."""

    vcpu: int | None
    host: HostMove | None = None
    choice: int = 0


def shortest_wrong_run(
    protocol: str, case: Case, code: HostCode, live_rounds: int
) -> Timeline | None:
    """Told in full; None if no run of at most so many live rounds ends wrong."""
    alone = (replace(case, starts=(start,)) for start in case.starts)
    found = [it for it in (_shortest(protocol, one, code, live_rounds) for one in alone) if it]
    return min(found, key=lambda it: (it.live_rounds, it.guest_moves), default=None)


def _shortest(protocol: str, case: Case, code: HostCode, live_rounds: int) -> Timeline | None:
    explorer, judge = Explorer(case, code, live_rounds, keeps=True), Judge(case)
    for ending in explorer.endings():
        _, buckets = explorer.history[-1]
        for made, bucket in sorted(buckets.items()):
            stopped = explorer.stop(bucket.states, ending.live_rounds)
            wrong = judge.outcomes(Bucket(stopped, bucket.runs)) == Outcome.WRONG
            if wrong.any():
                path = _path_to(explorer, case, made, bucket.states[wrong][:1])
                return _Teller(protocol, case, explorer, judge).tell(path, ending.live_rounds)
    return None


def _path_to(
    explorer: Explorer, case: Case, made: int, state: States
) -> tuple[States, list[_Made]]:
    """A start, and moves that lead from it to a state: found backwards, with few turns."""
    path: list[_Made] = []
    at, guests_turn = len(explorer.history) - 1, False
    while at or made:
        ways = list(_ways_to(explorer, case, at, made, state))
        before, move = min(ways, key=lambda way: (way[1].vcpu is not None) != guests_turn)
        path.append(move)
        guests_turn, state = move.vcpu is not None, before
        at, made = (at, made - 1) if guests_turn else (at - 1, made)
    return state, path[::-1]


def _ways_to(
    explorer: Explorer, case: Case, at: int, made: int, state: States
) -> Iterator[tuple[States, _Made]]:
    """States from which one move leads to this one, with the move."""
    if made:
        states = explorer.history[at][1][made - 1].states
        for vcpu in range(len(case.programs)):
            able, after = explorer.guest_step(states, vcpu)
            for before in states[able][after == state][:1]:
                yield np.array([before]), _Made(vcpu)
    move, buckets = explorer.history[at][0], explorer.history[at - 1][1] if at else {}
    if move and made in buckets:
        states = buckets[made].states
        for choice in range(len(move.choices)):
            after = explorer.host_step(states, move, choice)
            for before in states[after == state][:1]:
                yield np.array([before]), _Made(None, move, choice)


class _Teller:
    """Replays a path and says what happens."""

    def __init__(self, protocol: str, case: Case, explorer: Explorer, judge: Judge) -> None:
        self._protocol = protocol
        self._case = case
        self._explorer = explorer
        self._judge = judge

    def tell(self, path: tuple[States, list[_Made]], live_rounds: int) -> Timeline:
        """The path, and the stopped round after it."""
        state, moves = path
        start = [bool(unpack(page_of(state, page)).kernel_private[0]) for page in self._pages]
        per_round = len(self._explorer.moves(0, live=True))
        steps, seen = [], 0
        for move in moves:
            nth = min(seen // per_round + 1, live_rounds)
            step, state = self._step(nth, move, state)
            steps.append(step)
            seen += move.vcpu is None
        for it in self._explorer.moves(live_rounds, live=False):
            step, state = self._step(None, _Made(None, it), state)
            steps.append(step)
        return self._ended(live_rounds, start, steps, state)

    @property
    def _pages(self) -> range:
        return range(self._case.npages)

    def _ended(
        self, live_rounds: int, start: list[bool], steps: list[TimelineStep], state: States
    ) -> Timeline:
        vcpus = range(len(self._case.programs))
        made = [int(progress_of(state, self._case, vcpu)[0]) for vcpu in vcpus]
        readings = [self._judge.reading(it, int(page_of(state, it)[0]), made) for it in self._pages]
        page = max(self._pages, key=lambda it: readings[it].outcome)
        return Timeline(
            self._protocol,
            self._case.order.name,
            self._case.setting,
            live_rounds,
            start,
            steps,
            page,
            [" and ".join(acts) for acts in readings[page].moves],
            str(readings[page].source),
            str(readings[page].target),
        )

    def _step(self, nth: int | None, move: _Made, state: States) -> tuple[TimelineStep, States]:
        if move.host:
            after = self._explorer.host_step(state, move.host, move.choice)
            results = [self._host_result(move.host, move.choice, it, state) for it in self._pages]
            actor, does = "host", move.host.name
        else:
            assert move.vcpu is not None
            _, after = self._explorer.guest_step(state, move.vcpu)
            made = int(progress_of(state, self._case, move.vcpu)[0])
            guest_move = self._case.programs[move.vcpu][made]
            results = [_guest_result(guest_move.acts[it], it, after) for it in self._pages]
            actor, does = f"vCPU {move.vcpu}", guest_move.text
        return TimelineStep(nth, actor, does, self._joined(results)), after

    def _joined(self, results: Sequence[str]) -> str:
        if self._case.npages == 1:
            return results[0]
        told = [f"page {page}: {it}" for page, it in enumerate(results) if it and it != _NOT_SENT]
        return ", ".join(told) or (_NOT_SENT if _NOT_SENT in results else "")

    def _host_result(self, move: HostMove, choice: int, page: int, state: States) -> str:
        it = unpack(page_of(state, page))
        if move.name in {Call.GET_DIRTY, Call.GET_AND_CLEAR}:
            return "dirty" if it.kernel_dirty[0] else "clean"
        if move.name == Call.GET_PRIVATE:
            return "private" if it.kernel_private[0] else "shared"
        if move.name == Call.CLEAR or move.choices[choice][page] == Act.NOTHING:
            return ""
        if not it.dirty[0]:
            return _NOT_SENT
        if move.choices[choice][page] == Act.LEAVE:
            return "left for the next round"
        return "encrypted road" if it.private[0] else "raw"


def _guest_result(acts: tuple[Act, ...], page: int, after: States) -> str:
    it = unpack(page_of(after, page))
    key = "under the guest's key" if it.power[0] == 1 else "in the clear"
    words = {
        Act.WRITE: f"written {key}",
        Act.CONVERT: f"now {key}",
        Act.FLIP: f"page table: {'private' if it.table_private[0] else 'shared'}",
        Act.ANNOUNCE: f"kernel: {'private' if it.kernel_private[0] else 'shared'}",
        Act.RESET: "page table and kernel: private",
    }
    return ", ".join(words[act] for act in acts if act in words)
