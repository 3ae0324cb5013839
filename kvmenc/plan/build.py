"""From a capture to a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.plan import words
from kvmenc.plan.answer import query_migrate
from kvmenc.plan.profile import QEMU_10_0, own_profile
from kvmenc.plan.result import (
    Counts,
    Guest,
    Inputs,
    Plan,
    PlannedRound,
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
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.precopy import Outcome
    from kvmenc.plan.profile import Profile
    from kvmenc.plan.result import Bottleneck, Verdict

__all__ = ["guest_of", "inputs_of", "make_plan", "plan_many", "plan_of"]

#: Plans that a process gets at a time: one alone takes about as long as its way there.
_FLEET_LOT = 16


def make_plan(capture: Capture, parameters: Parameters, profile: Profile = QEMU_10_0) -> Plan:
    """Say what migrating the captured guest would do."""
    return plan_of(WhatIf(capture, profile).outcome(parameters), capture, parameters, profile)


def plan_of(
    outcome: Outcome,
    capture: Capture,
    parameters: Parameters,
    profile: Profile,
    error: str | None = None,
) -> Plan:
    """How a migration ended, computed or rehearsed, as a plan.

    Args:
        outcome: of the migration.
        capture: the guest before.
        parameters: of the migration.
        profile: whose rules it followed.
        error: what broke it off; None: nothing did.
    """
    costs = RoadCosts(capture.page_size, parameters, profile)
    ends = error is None and converges(outcome, parameters)
    rounds = tuple(_rounds(outcome.rounds, costs, block_name_bytes(capture.blocks)))
    totals = _totals(rounds, outcome.rounds, costs)
    verdict: Verdict = "converges" if ends else "does-not-converge"
    guest = guest_of(capture)
    return Plan(
        verdict=verdict,
        reason=error or words.reason(outcome, verdict, parameters, totals.bottleneck),
        total_time_ms=outcome.total_ms if ends else None,
        downtime_ms=outcome.downtime_ms if ends else None,
        profile=profile.name,
        proven=bool(profile.proven),
        inputs=inputs_of(parameters),
        guest=guest,
        rounds=rounds,
        totals=totals,
        query_migrate=query_migrate(outcome, rounds, totals, guest, parameters, profile),
        assumptions=words.assumptions(guest, parameters, profile),
    )


def plan_many(
    captures: Sequence[Capture],
    parameters: Sequence[Parameters],
    executor: Executor,
    profiles: Sequence[Profile] = (),
) -> list[Plan]:
    """Plan a fleet: each guest with the parameters at its place, in that order.

    Args:
        captures: the guests.
        parameters: as many.
        executor: carries the work out; all that goes to it and comes back can be pickled.
        profiles: as many; none: the rules of each guest's own QEMU.
    """
    rules = profiles or [own_profile(it) for it in captures]
    wanted = list(zip(captures, parameters, rules, strict=True))
    lots = [wanted[at : at + _FLEET_LOT] for at in range(0, len(wanted), _FLEET_LOT)]
    return [plan for plans in executor.map(_plan_lot, lots) for plan in plans]


def _plan_lot(lot: Sequence[tuple[Capture, Parameters, Profile]]) -> list[Plan]:
    return [make_plan(*it) for it in lot]


def _rounds(
    rounds: Iterable[Round], costs: RoadCosts, name_bytes: ByRoad
) -> Iterator[PlannedRound]:
    """Whole pages and bytes, rounded so that sums over rounds are right to the page."""
    sent = ByRoad()
    for one in rounds:
        before, sent = sent, sent.plus(one.sent)
        pages = ByRoad(*(round(b) - round(a) for a, b in zip(before, sent, strict=True)))
        size = pages.times(one.bytes_per_page).plus(name_bytes)
        name_bytes = ByRoad()
        yield PlannedRound(
            ms=one.ms,
            dirty_pages=round(one.dirty_pages),
            private_pages=round(one.private_pages),
            pages=_counts(pages),
            bytes=_counts(size),
            ms_by_road=Times(*_times(one, costs)),
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
        sent, ms = sent.plus(one.sent), ms.plus(_times(one, costs))
    return Totals(
        pages=_sum(one.pages for one in planned),
        bytes=_sum(one.bytes for one in planned),
        ms=Times(*ms),
        bottleneck=_bottleneck(sent, sum(one.ms for one in rounds), costs),
    )


def _times(one: Round, costs: RoadCosts) -> ByRoad:
    """The time of a round, waiting shared out among its roads."""
    sending = one.sent.times(costs.ms_per_page)
    return sending.scaled(one.ms / sum(sending)) if any(sending) else sending


def _sum(counts: Iterable[Counts]) -> Counts:
    total = Counts(0, 0, 0)
    for one in counts:
        total = Counts(
            total.normal + one.normal, total.zero + one.zero, total.encrypted + one.encrypted
        )
    return total


def inputs_of(parameters: Parameters) -> Inputs:
    """The parameters as a plan shows them."""
    xbzrle = parameters.xbzrle
    return Inputs(
        max_bandwidth_bytes_per_s=parameters.max_bandwidth_bytes_per_s,
        link_bytes_per_s=parameters.link,
        downtime_limit_ms=parameters.downtime_limit_ms,
        time_limit_ms=parameters.time_limit_ms,
        private_rate_pps=parameters.private_rate_pps,
        private_batch_pages=parameters.private_batch_pages,
        send_buffer_bytes=parameters.send_buffer_bytes,
        auto_converge=parameters.auto_converge,
        multifd_channels=parameters.multifd_channels,
        xbzrle_encoded_share=xbzrle.encoded_share if xbzrle else None,
        xbzrle_cache_bytes=xbzrle.cache_bytes if xbzrle else None,
        postcopy=parameters.postcopy,
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
        device_pages=max(sum(it.pages) for it in capture.device.points) if capture.device else None,
    )
