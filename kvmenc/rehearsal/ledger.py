"""What happened, in the words of a plan."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from kvmenc.plan import Plan, words
from kvmenc.plan.answer import query_migrate
from kvmenc.plan.build import guest_of, inputs_of, rounds_of, totals_of
from kvmenc.plan.roads import RoadCosts, block_name_bytes
from kvmenc.plan.whatif import converges
from kvmenc.rehearsal.result import RoundPair

if TYPE_CHECKING:
    from kvmenc.capture import Capture
    from kvmenc.plan import Parameters, Profile
    from kvmenc.plan.precopy import Outcome
    from kvmenc.plan.result import Verdict

__all__ = ["ledger_of", "pair_rounds"]


def ledger_of(
    outcome: Outcome, capture: Capture, parameters: Parameters, profile: Profile, error: str | None
) -> Plan:
    """As ``kvmenc.plan.make_plan``, of pages that were really sent.

    Args:
        outcome: of the migration.
        capture: the guest before.
        parameters: of the migration.
        profile: whose rules it followed.
        error: what ended it; None: nothing did.
    """
    costs = RoadCosts(capture.page_size, parameters, profile)
    ends = error is None and converges(outcome, parameters)
    rounds = tuple(rounds_of(outcome.rounds, costs, block_name_bytes(capture.blocks)))
    totals = totals_of(rounds, outcome.rounds, costs)
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
        assumptions=("Pages were counted as they were sent; times and bytes are computed.",),
    )


def pair_rounds(plan: Plan, ledger: Plan) -> tuple[RoundPair, ...]:
    """The rounds of both side by side: live ones by number, and the stopped ones last."""
    pairs = []
    for stopped in (False, True):
        sides = ([it.pages for it in one.rounds if it.stopped == stopped] for one in (plan, ledger))
        pairs += [RoundPair(*it) for it in itertools.zip_longest(*sides)]
    return tuple(pairs)
