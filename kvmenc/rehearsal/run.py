"""A migration rehearsed, from the first sync to the comparison of both ends."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.contents import Contents, count_zero_pages
from kvmenc.dirtysource import DirtyLogSource
from kvmenc.errors import HostError
from kvmenc.firmware import FirmwareRefused, GuestState, SendSession
from kvmenc.measure import Recording
from kvmenc.ordering.protocols import OWN, Clearing, HostSync
from kvmenc.plan import QEMU_10_0, Parameters, make_plan
from kvmenc.plan.overheads import Overheads
from kvmenc.plan.precopy import Precopy
from kvmenc.plan.rhythm import Pace
from kvmenc.plan.roads import RoadCosts
from kvmenc.rehearsal.apart import TargetRefused
from kvmenc.rehearsal.compare import compare_ends, digest, same_memory
from kvmenc.rehearsal.destination import Opening
from kvmenc.rehearsal.faults import Broken, Striker
from kvmenc.rehearsal.ledger import ledger_of, pair_rounds
from kvmenc.rehearsal.line import Line
from kvmenc.rehearsal.ram import RealRam
from kvmenc.rehearsal.recorder import Recorder
from kvmenc.rehearsal.records import RecordRefused
from kvmenc.rehearsal.result import DryRun, Effort, Struck, Survival
from kvmenc.rehearsal.source import Sender
from kvmenc.rehearsal.vcpus import Stepped
from kvmenc.scratchrun import SYNC_AT_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from kvmenc.capture import Capture
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.maps import PrivateMap
    from kvmenc.ordering.protocols import Protocol
    from kvmenc.plan import Plan, Profile
    from kvmenc.plan.precopy import Outcome
    from kvmenc.rehearsal.destination import Target
    from kvmenc.rehearsal.ends import Source
    from kvmenc.rehearsal.faults import Fault
    from kvmenc.rehearsal.line import Listener
    from kvmenc.rehearsal.records import PagesRecord
    from kvmenc.rehearsal.result import Comparison, Verdict, Where
    from kvmenc.rehearsal.side import Side

__all__ = ["Rehearsed", "Wanted", "rehearse"]

_BOOT_MS = 1000.0
_GOING_ON_MS = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be rehearsed.

    Attributes:
        parameters: what the user decides of a migration.
        protocol: how is synced.
        fault: what goes wrong; None: nothing.
        stream: a file that takes what is sent, as a migration stream; None: nobody does.
        profile: whose rules are followed.
        watch_ms: for so long of its time the guest is watched before, for the plan.
    """

    parameters: Parameters
    protocol: Protocol = OWN[1]
    fault: Fault | None = None
    stream: BinaryIO | None = None
    profile: Profile = QEMU_10_0
    watch_ms: float = SYNC_AT_MS[-1]

    @property
    def manual_protect(self) -> bool:
        """Whether the protocol reads the dirty log without clearing it."""
        return self.protocol.clearing != Clearing.BY_GET


class RealPrecopy(Precopy):
    """The migration thread, which stops a real guest."""

    def _complete(self) -> Outcome:
        assert isinstance(self._sweep, RealRam), "as it was made"
        self._sweep.stop()
        return super()._complete()

    def broken(self) -> Outcome:
        """How far it had come when something went wrong."""
        return self._outcome("no-progress", None, self._pending_bytes)


class Rehearsed(NamedTuple):
    """What came of it.

    Attributes:
        result: what ``kvmenc dry-run`` tells.
        capture: the guest before, as the plan saw it.
    """

    result: DryRun
    capture: Capture


def rehearse(
    source: Source,
    wanted: Wanted,
    target_of: Callable[[Layout], AbstractContextManager[Target]],
    watch: Callable[[int], object] = lambda _pages: None,
) -> Rehearsed:
    """Boot the guest, look at it, plan, migrate, compare.

    Args:
        source: the guest.
        wanted: how.
        target_of: makes the destination: ``near_target`` or ``far_target``.
        watch: told of every record how many pages it has.

    Raises:
        HostError: the KVM at hand cannot do it.
    """
    source.guest.boot(_BOOT_MS)
    capture = _capture(source, wanted)
    plan = make_plan(capture, wanted.parameters, wanted.profile)
    with target_of(source.side.layout) as target:
        return Rehearsed(_Rehearsal(source, target, wanted, watch).run(capture, plan), capture)


def _capture(source: Source, wanted: Wanted) -> Capture:
    """What ``kvmenc capture`` would have seen of the guest."""
    side, guest = source.side, source.guest
    start_ms = now_ms = guest.ms
    dirty = DirtyLogSource(side.vm, manual_protect=wanted.manual_protect)
    recording = Recording(side.layout, dirty, side.private, lambda: now_ms / 1e3)
    recording.start()
    for at_ms in (it for it in SYNC_AT_MS if it <= wanted.watch_ms):
        now_ms = start_ms + at_ms
        guest.run_until(now_ms)
        recording.sync()
    return recording.capture(source.about, _zero_words(side, recording))[0]


def _zero_words(side: Side, recording: Recording) -> dict[str, np.ndarray]:
    found = {}
    with Contents(os.getpid(), side.layout) as contents:
        for block in side.layout.blocks:
            counted = count_zero_pages(contents, block, block.npages, np.random.default_rng(0))
            if counted.words is not None:
                found[block.name] = counted.words & ~recording.maps.private[block.name].words
    return found


class _Watch:
    """A ``Listener`` that counts."""

    def __init__(self, watch: Callable[[int], object]) -> None:
        self._watch = watch

    def round_begins(self, *, stopped: bool) -> None:
        """Nothing to count."""

    def hear(self, record: PagesRecord) -> None:
        """A record that arrived."""
        self._watch(record.pages)

    def switched(self, private: Mapping[str, PrivateMap]) -> None:
        """Nothing to count."""


class _Rehearsal:
    """One migration.

    Args:
        source: the guest.
        target: where it is to go.
        wanted: how.
        watch: told of every record.
    """

    def __init__(
        self, source: Source, target: Target, wanted: Wanted, watch: Callable[[int], object]
    ) -> None:
        self._source, self._target, self._wanted = source, target, wanted
        key, side = os.urandom(16), source.side
        pdh = side.kernel.firmware.chip.certificates().pdh
        session = self._session = SendSession(side.sev, target.certificates())
        target.begin(Opening(session.policy, pdh, session.session, session.hdr_len, key))
        self._striker = Striker(wanted.fault)
        listeners: list[Listener] = [_Watch(watch)]
        if wanted.stream is not None:
            listeners.append(Recorder(wanted.stream, side.layout, session, pdh))
        self._line = Line(key, target.take, self._striker, tuple(listeners))
        self._host = HostSync(wanted.protocol, side.vm, side.private, side.layout)

    def run(self, capture: Capture, plan: Plan) -> DryRun:
        """Migrate, and see what became of the guest."""
        wanted, began_s = self._wanted, time.perf_counter()
        outcome, error = self._migrate(capture)
        seconds = time.perf_counter() - began_s
        arrived = error is None and outcome.end == "completed"
        comparison = compare_ends(self._source.side, self._target) if arrived else None
        survival = None if arrived else self._stay()
        ledger = ledger_of(outcome, capture, wanted.parameters, wanted.profile, error)
        runs_at = self._runs_at
        verdict, reason = _verdict(ledger, comparison, survival, runs_at)
        if error and verdict == "does-not-converge":
            verdict = "whole"  # it was not to converge: it was to survive
        fault = wanted.fault
        return DryRun(
            verdict=verdict,
            reason=reason,
            runs_at=runs_at,
            guest=self._source.about,
            vcpus=self._source.guest.how,
            parts=self._source.parts,
            protocol=wanted.protocol.name,
            ledger=ledger,
            capture=capture,
            plan=plan,
            rounds=pair_rounds(plan, ledger),
            comparison=comparison,
            fault=Struck(str(fault), self._striker.struck, error) if fault else None,
            survival=survival,
            effort=Effort(seconds, self._line.moved_pages / seconds, self._line.sent_bytes),
        )

    def _migrate(self, capture: Capture) -> tuple[Outcome, str | None]:
        """How it went, and what it was ended by, if anything."""
        source = self._source
        sender = Sender(source.side, self._session, self._line, self._striker)
        ram = RealRam(self._host, source.side.layout, sender, source.guest, source.guest.ms)
        precopy = self._precopy(ram, capture)
        try:
            outcome = precopy.run()
            if outcome.end == "completed":
                self._switch()
        except (Broken, FirmwareRefused, RecordRefused, TargetRefused) as error:
            return precopy.broken(), str(error)
        return outcome, None

    def _precopy(self, ram: RealRam, capture: Capture) -> RealPrecopy:
        parameters, profile = self._wanted.parameters, self._wanted.profile
        costs = RoadCosts(capture.page_size, parameters, profile)
        return RealPrecopy(ram, costs, Overheads.of(capture), parameters, profile, Pace())

    # -- the end ------------------------------------------------------------------------------

    def _switch(self) -> None:
        """The destination has all; it may run the guest, and the source may no more."""
        private = {name: it.words for name, it in self._host.maps.private.items()}
        self._target.finish(private)
        self._session.finish()
        self._line.switched(self._host.maps.private)

    def _stay(self) -> Survival:
        """The guest stays; the destination's is worth nothing."""
        guest, side = self._source.guest, self._source.side
        guest.stop()
        before = digest(side)
        with suppress(HostError):
            self._session.cancel()
        unchanged = digest(side) == before
        guest.go_on()
        runs, halted = guest.runs, guest.halted
        guest.run_until(guest.ms + _GOING_ON_MS)
        guest.stop()
        went_on = None if halted else guest.runs > runs
        return Survival(unchanged, went_on, self._as_twin())

    def _as_twin(self) -> bool | None:
        source = self._source
        if source.twin is None:
            return None
        with source.twin() as twin:
            assert isinstance(twin.guest, Stepped), "only such a guest has a twin"
            twin.guest.replay(source.guest.runs)
            twin.guest.stop()
            return same_memory(source.side, twin.side)

    @property
    def _runs_at(self) -> Where | None:
        """Who may run the guest, as the firmware of both says."""
        source = self._source.side.sev.status().state == GuestState.RUNNING
        if source == self._target.runs():
            return None
        return "source" if source else "destination"


def _verdict(
    ledger: Plan, comparison: Comparison | None, survival: Survival | None, runs_at: Where | None
) -> tuple[Verdict, str]:
    if runs_at is None:
        return "lost", "the guest runs at no end, or at both"
    if comparison:
        return _arrived(ledger, comparison)
    assert survival is not None, "the guest stayed"
    if not survival.unchanged or False in {survival.went_on, survival.as_undisturbed}:
        return "wrong", f"the guest stayed, but not as it was; {ledger.reason}"
    return "does-not-converge", ledger.reason


def _arrived(ledger: Plan, comparison: Comparison) -> tuple[Verdict, str]:
    if comparison.wrong_pages or comparison.wrong_states:
        return "wrong", "the destination's guest is not the one that was stopped"
    if ledger.verdict == "does-not-converge":
        return "does-not-converge", ledger.reason
    return "whole", ledger.reason
