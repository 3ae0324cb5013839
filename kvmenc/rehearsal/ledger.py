"""What happened, in the words of a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from kvmenc.plan.build import plan_of
from kvmenc.plan.compare import beside
from kvmenc.rehearsal.result import RoundPair

if TYPE_CHECKING:
    from kvmenc.capture import Capture
    from kvmenc.plan import Parameters, Plan, Profile
    from kvmenc.plan.precopy import Outcome

__all__ = ["ledger_of", "pair_rounds"]

_ASSUMPTIONS = ("Pages were counted as they were sent; times and bytes are computed.",)


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
    return replace(plan_of(outcome, capture, parameters, profile, error), assumptions=_ASSUMPTIONS)


def pair_rounds(plan: Plan, ledger: Plan) -> tuple[RoundPair, ...]:
    """Pages of both by round, side by side."""
    pairs = beside(plan.rounds, ledger.rounds)
    return tuple(RoundPair(*(it.pages if it else None for it in pair)) for pair in pairs)
