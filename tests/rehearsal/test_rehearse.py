"""Whole rehearsals of small guests."""

from __future__ import annotations

import io
import itertools
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from fakekvm.guests import Flip, PortOut, Rest, WritePages, part_of, placed
from kvmenc.backtest import backtest, load_run
from kvmenc.firmware import SendSession
from kvmenc.ordering.protocols import ASKED_ONCE, OWN, PROTOCOLS, Clearing
from kvmenc.plan import Parameters
from kvmenc.rehearsal import (
    BuiltIn,
    DryRun,
    FaultKind,
    Rehearsed,
    Wanted,
    fake_source,
    far_target,
    guest_layout,
    local_source,
    near_target,
    parse_fault,
    rehearse,
    run_file,
)
from kvmenc.rehearsal.apart import TargetRefused
from kvmenc.rehearsal.destination import Opening
from kvmenc.rehearsal.vcpus import UP_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from fakekvm.guests import Step
    from fakekvm.scripts import WritableGfns
    from kvmenc.plan import Plan

MEMORY = 4 << 20
FAST = Parameters(private_rate_pps=20_000.0)


class Halting:
    """A guest that writes all its pages once, and halts."""

    about = "halts"

    def script(self, _vm: int, _vcpu: int, writable: WritableGfns) -> Iterator[Step]:
        memory = list(writable().values())
        yield from placed([WritePages(range(sum(map(len, memory))), 7)], memory)
        yield PortOut(UP_PORT, 0)


class Rewriting:
    """A guest without chance: the same pages, each millisecond."""

    about = "rewrites the same pages"

    def __init__(self, nprivate: int, sets: Sequence[range]) -> None:
        self._nprivate, self._sets = nprivate, sets

    def script(self, _vm: int, _vcpu: int, writable: WritableGfns) -> Iterator[Step]:
        memory = list(writable().values())
        npages = sum(map(len, memory))
        for area in part_of(memory, range(self._nprivate, npages)):
            yield Flip(area.start, len(area), private=False)
        used = (npages - self._nprivate) // 2
        yield from placed([WritePages(range(self._nprivate, self._nprivate + used), 7)], memory)
        yield PortOut(UP_PORT, 0)
        yield from placed(self._work(), memory)

    def _work(self) -> Iterator[Step]:
        for value in itertools.count(1):
            yield from (WritePages(pages, value) for pages in self._sets)
            yield Rest(1e-3)


def built_in(target: Any = near_target, *, threads: bool = False, **wanted: Any) -> DryRun:
    usual: dict[str, Any] = {"parameters": FAST, "watch_ms": 1000}
    wish = Wanted(**usual | wanted)
    shape = guest_layout(MEMORY)
    manual = wish.manual_protect
    with fake_source(BuiltIn(0.5, 1), shape, manual_protect=manual, threads=threads) as source:
        return rehearse(source, wish, target).result


def assert_whole_there(result: DryRun, pages: int = MEMORY // 4096) -> None:
    assert (result.verdict, result.runs_at) == ("whole", "destination")
    assert result.comparison is not None
    assert result.comparison.pages == pages
    assert (result.comparison.wrong_pages, result.comparison.wrong_states) == (0, 0)


@pytest.mark.parametrize("target", [near_target, far_target])
def test_every_page_arrives_in_this_process_and_in_another(target: Any) -> None:
    result = built_in(target)
    assert_whole_there(result)
    assert result.ledger.totals.pages.encrypted > 400
    assert result.ledger.totals.pages.zero > 100


def test_every_page_of_a_guest_in_threads_arrives() -> None:
    assert_whole_there(built_in(threads=True))


@pytest.mark.parametrize("protocol", [*PROTOCOLS, ASKED_ONCE], ids=lambda it: it.name)
def test_protocols_end_as_the_search_says(protocol: Any) -> None:
    """Flips must be dirty, and dirty bits be taken before contents are read."""
    right = protocol.flips_dirty and protocol.clearing != Clearing.AFTER_READING
    result = built_in(protocol=protocol)
    assert (result.verdict == "whole") == right
    if not right:
        assert result.comparison is not None
        assert result.comparison.told


@pytest.mark.parametrize("kind", list(FaultKind))
@pytest.mark.parametrize("when", ["1", "stopped"])
def test_after_a_fault_the_source_runs_and_is_whole(kind: FaultKind, when: str) -> None:
    result = built_in(fault=parse_fault(f"{kind}@{when}"))
    assert (result.verdict, result.runs_at, result.comparison) == ("whole", "source", None)
    assert result.survival is not None
    assert (result.survival.unchanged, result.survival.went_on) == (True, True)
    assert result.survival.as_undisturbed is True
    assert result.fault is not None
    assert result.fault.struck
    named = {
        "send-error": "SEV_RET_INVALID_LEN",
        "destination-refuses": "SEV_RET_BAD_MEASUREMENT",
        "link-cut": "cut",
        "cancel": "cancelled",
    }
    assert named[kind] in str(result.fault.error)


@pytest.mark.parametrize("threads", [False, True])
def test_a_guest_that_had_halted_is_whole_after_a_fault(threads: bool) -> None:
    layout = guest_layout(MEMORY)
    with fake_source(Halting(), layout, threads=threads) as source:
        wanted = Wanted(parameters=FAST, fault=parse_fault("cancel@1"))
        result = rehearse(source, wanted, near_target).result
    assert (result.verdict, result.runs_at) == ("whole", "source")
    assert result.survival is not None
    assert (result.survival.unchanged, result.survival.went_on) == (True, None)


def test_a_far_destination_that_refuses_ends_the_migration() -> None:
    result = built_in(far_target, fault=parse_fault("destination-refuses@stopped"))
    assert (result.verdict, result.runs_at) == ("whole", "source")
    assert "BAD_MEASUREMENT" in result.reason


def test_a_destination_that_has_refused_a_record_never_runs_the_guest() -> None:
    """Also where the sender asks it to before it knows: then both ends would run it."""
    with (
        far_target(guest_layout(MEMORY)) as target,
        fake_source(BuiltIn(0.5, 1), guest_layout(MEMORY)) as source,
    ):
        session = SendSession(source.side.sev, target.certificates())
        pdh = source.side.kernel.firmware.chip.certificates().pdh
        target.begin(Opening(session.policy, pdh, session.session, session.hdr_len, bytes(16)))
        target.take(b"no record")
        with pytest.raises(TargetRefused, match="truncated"):
            target.finish({})
        assert not target.runs()
        with pytest.raises(TargetRefused, match="truncated"):
            target.finish({})


def test_a_fault_that_never_comes_is_told() -> None:
    result = built_in(fault=parse_fault("cancel@99"))
    assert_whole_there(result)
    assert result.fault is not None
    assert not result.fault.struck


def test_a_guest_too_quick_for_the_firmware_stays() -> None:
    slow = Parameters(private_rate_pps=100.0, time_limit_ms=3_000.0)
    result = built_in(parameters=slow)
    assert (result.verdict, result.runs_at) == ("does-not-converge", "source")
    assert result.survival is not None
    assert result.survival.as_undisturbed


def rewriting(parameters: Parameters) -> Rehearsed:
    guest = Rewriting(1024, [range(128, 640), range(2048, 2304)])
    with fake_source(guest, guest_layout(16 << 20)) as source:
        return rehearse(source, Wanted(parameters=parameters), near_target)


@pytest.mark.parametrize("downtime_limit_ms", [100.0, 200.0])
def test_plan_and_rehearsal_of_a_guest_without_chance_agree_by_round_and_road(
    downtime_limit_ms: float, tmp_path: Path
) -> None:
    parameters = Parameters(
        private_rate_pps=2000.0, time_limit_ms=3000.0, downtime_limit_ms=downtime_limit_ms
    )
    found = rewriting(parameters)
    plan, ledger = found.result.plan, found.result.ledger
    assert ledger.verdict == plan.verdict
    assert len(ledger.rounds) == len(plan.rounds)
    for ours, theirs in zip(ledger.rounds, plan.rounds, strict=True):
        assert (ours.pages, ours.bytes, ours.stopped) == (
            theirs.pages,
            theirs.bytes,
            theirs.stopped,
        )
        assert (ours.dirty_pages, ours.private_pages) == (theirs.dirty_pages, theirs.private_pages)
        assert ours.ms == pytest.approx(theirs.ms)
    for name, data in (("run", run_file(found, "r")), ("json", msgspec.json.encode(found.result))):
        file = tmp_path / name
        file.write_bytes(data)
        check_backtest(file, ledger)


def check_backtest(file: Path, ledger: Plan) -> None:
    """A rehearsal is a migration that happened: figures, and by round and road, are as planned."""
    (run,) = backtest([load_run(file)]).runs
    assert run.converged == run.converges["kvmenc"] == (ledger.verdict == "converges")
    errors = {it.field: it.predicted["kvmenc"].error_percent for it in run.fields}
    if run.converged:
        assert errors["transferred"] == errors["normal"] == 0
    assert len(run.rounds) == len(ledger.rounds) > 1
    for told, round_ in zip(run.rounds, ledger.rounds, strict=True):
        assert told.actual
        assert told.predicted
        assert (told.stopped, told.actual.pages, told.actual.bytes, told.actual.ms) == (
            round_.stopped,
            round_.pages,
            round_.bytes,
            round_.ms,
        )
        assert (told.predicted.pages, told.predicted.bytes) == (round_.pages, round_.bytes)
        assert told.predicted.ms == pytest.approx(round_.ms)


def test_a_stream_of_it_is_written() -> None:
    stream = io.BytesIO()
    result = built_in(stream=stream)
    assert_whole_there(result)
    assert stream.getvalue()[:4] == b"QEVM"
    assert len(stream.getvalue()) >= result.ledger.totals.bytes.total


def test_the_same_seed_gives_the_same_ledger() -> None:
    assert built_in().ledger == built_in(protocol=OWN[1]).ledger


@pytest.mark.kvm
def test_a_real_guest_arrives() -> None:
    with local_source() as source:
        npages = sum(block.npages for block in source.side.layout.blocks)
        result = rehearse(source, Wanted(parameters=FAST), near_target).result
    assert_whole_there(result, npages)
    assert any(part.real for part in result.parts)


def test_layouts_have_a_shift_and_a_hole() -> None:
    slots = guest_layout(4 << 30).slots
    assert [slot.base_gfn for slot in slots] == [0, 0x100, 1 << 20]
    assert np.diff([slot.userspace_addr for slot in slots])[0] // 4096 % 64
