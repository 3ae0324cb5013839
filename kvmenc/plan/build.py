"""From a capture to a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.plan import words
from kvmenc.plan.profile import QEMU_10_0
from kvmenc.plan.result import (
    Counts,
    Guest,
    Inputs,
    Plan,
    PlannedRound,
    QueryMigrate,
    RamStats,
    Times,
    Totals,
)
from kvmenc.plan.roads import ByRoad, RoadCosts, block_name_bytes
from kvmenc.plan.whatif import WhatIf, converges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from concurrent.futures import Executor

    from kvmenc.capture import Capture
    from kvmenc.plan.ledger import Round
    from kvmenc.plan.precopy import Outcome
    from kvmenc.plan.profile import Parameters, Profile
    from kvmenc.plan.result import Bottleneck, Verdict

__all__ = ["guest_of", "make_plan", "plan_many"]

#: Plans that a process gets at a time: one alone takes about as long as its way there.
_FLEET_CHUNK = 16


def make_plan(capture: Capture, parameters: Parameters, profile: Profile = QEMU_10_0) -> Plan:
    """Say what migrating the captured guest would do."""
    costs = RoadCosts(capture.page_size, parameters.link, parameters.private_rate_pps)
    outcome = WhatIf(capture, profile).outcome(parameters)
    ends = converges(outcome, parameters)
    rounds = tuple(_rounds(outcome.rounds, costs, block_name_bytes(capture.blocks)))
    totals = _totals(rounds, outcome.rounds, costs)
    verdict: Verdict = "converges" if ends else "does-not-converge"
    guest = guest_of(capture)
    return Plan(
        verdict=verdict,
        reason=words.reason(outcome, verdict, parameters, totals.bottleneck),
        total_time_ms=outcome.total_ms if ends else None,
        downtime_ms=outcome.downtime_ms if ends else None,
        profile=profile.name,
        inputs=_inputs(parameters),
        guest=guest,
        rounds=rounds,
        totals=totals,
        query_migrate=_query_migrate(outcome, rounds, totals, guest),
        assumptions=words.assumptions(guest, parameters, profile),
    )


def plan_many(
    captures: Sequence[Capture], parameters: Sequence[Parameters], executor: Executor
) -> list[Plan]:
    """Plan a fleet: each guest with the parameters at its place, in that order.

    Args:
        captures: the guests.
        parameters: as many.
        executor: carries the work out; all that goes to it and comes back can be pickled.
    """
    pairs = list(zip(captures, parameters, strict=True))
    return list(executor.map(_plan_pair, pairs, chunksize=_FLEET_CHUNK))


def _plan_pair(pair: tuple[Capture, Parameters]) -> Plan:
    return make_plan(*pair)


def _rounds(
    rounds: Iterable[Round], costs: RoadCosts, name_bytes: ByRoad
) -> Iterator[PlannedRound]:
    """Whole pages and bytes, rounded so that sums over rounds are right to the page."""
    sent = ByRoad()
    for one in rounds:
        before, sent = sent, sent.plus(one.sent)
        pages = ByRoad(*(round(b) - round(a) for a, b in zip(before, sent, strict=True)))
        size = pages.times(costs.bytes_per_page).plus(name_bytes)
        name_bytes = ByRoad()
        yield PlannedRound(
            ms=one.ms,
            dirty_pages=round(one.dirty_pages),
            private_pages=round(one.private_pages),
            pages=_counts(pages),
            bytes=_counts(size),
            bottleneck=_bottleneck(one.sent, one.ms, costs),
            stopped=one.stopped,
        )


def _counts(amounts: ByRoad) -> Counts:
    return Counts(*(round(amount) for amount in amounts))


def _bottleneck(sent: ByRoad, ms: float, costs: RoadCosts) -> Bottleneck:
    firmware_ms = sum(sent.times(costs.firmware_ms_per_page))
    return "firmware" if firmware_ms > ms / 2 else "network"


def _totals(planned: tuple[PlannedRound, ...], rounds: list[Round], costs: RoadCosts) -> Totals:
    ms = sent = ByRoad()
    for one in rounds:
        sent = sent.plus(one.sent)
        sending = one.sent.times(costs.ms_per_page)
        if any(sending):
            ms = ms.plus(sending.scaled(one.ms / sum(sending)))
    return Totals(
        pages=_sum(one.pages for one in planned),
        bytes=_sum(one.bytes for one in planned),
        ms=Times(*ms),
        bottleneck=_bottleneck(sent, sum(one.ms for one in rounds), costs),
    )


def _sum(counts: Iterable[Counts]) -> Counts:
    total = Counts(0, 0, 0)
    for one in counts:
        total = Counts(
            total.normal + one.normal, total.zero + one.zero, total.encrypted + one.encrypted
        )
    return total


def _inputs(parameters: Parameters) -> Inputs:
    return Inputs(
        max_bandwidth_bytes_per_s=parameters.max_bandwidth_bytes_per_s,
        link_bytes_per_s=parameters.link,
        downtime_limit_ms=parameters.downtime_limit_ms,
        time_limit_ms=parameters.time_limit_ms,
        private_rate_pps=parameters.private_rate_pps,
    )


def guest_of(capture: Capture) -> Guest:
    """What was captured, in short."""
    zero = [block.zero_pages for block in capture.blocks if block.zero_pages is not None]
    return Guest(
        source=capture.source,
        private_source=capture.private_source,
        holds=capture.holds,
        page_size=capture.page_size,
        pages=capture.npages,
        private_pages=capture.private_pages,
        zero_pages=sum(zero) if zero else None,
        unlogged_pages=sum(block.unlogged_pages for block in capture.blocks),
    )


def _query_migrate(
    outcome: Outcome, rounds: tuple[PlannedRound, ...], totals: Totals, guest: Guest
) -> QueryMigrate:
    """Encrypted pages are counted as normal, as openEuler's QEMU does (migration/ram.c)."""
    counters, completed = outcome.counters, outcome.end == "completed"
    transferred = totals.bytes.total
    while_stopped = sum(one.bytes.total for one in rounds if one.stopped)
    whole_mbps = transferred * 8 / outcome.total_ms / 1000
    normal = totals.pages.normal + totals.pages.encrypted
    ram = RamStats(
        transferred=transferred,
        remaining=0 if completed else round(outcome.pending_bytes),
        total=guest.pages * guest.page_size,
        duplicate=totals.pages.zero,
        normal=normal,
        normal_bytes=normal * guest.page_size,
        dirty_pages_rate=0 if completed else round(counters.dirty_pages_rate),
        mbps=whole_mbps if completed else counters.bandwidth_bytes_per_ms * 8 / 1000,
        dirty_sync_count=counters.sync_count,
        pages_per_second=round(counters.pages_per_second),
        page_size=guest.page_size,
        precopy_bytes=transferred - while_stopped,
        downtime_bytes=while_stopped,
    )
    total_time = round(outcome.total_ms)
    if outcome.downtime_ms is not None:
        downtime = round(outcome.downtime_ms)
        return QueryMigrate("completed", ram, total_time, downtime=downtime)
    expected = round(counters.expected_downtime_ms)
    return QueryMigrate("active", ram, total_time, expected_downtime=expected)
