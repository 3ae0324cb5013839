"""A rehearsal as data: what ``kvmenc dry-run --json`` prints, schema ``kvmenc.dry-run/1``."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from kvmenc.capture import Capture
from kvmenc.plan.result import Counts, Plan
from kvmenc.scratchrun import Part

__all__ = [
    "MOST_TOLD",
    "Comparison",
    "DryRun",
    "Effort",
    "RoundPair",
    "Struck",
    "Survival",
    "WrongPage",
]

#: Wrong pages that are named.
MOST_TOLD = 20

#: ``whole``: one end has the guest, with every page as it was. ``wrong``: a page or a state is not.
#: ``does-not-converge``: the guest stays, whole, for it could not be sent in time. ``lost``: after
#: what went wrong it runs nowhere, or on both ends.
Verdict = Literal["whole", "wrong", "does-not-converge", "lost"]
Where = Literal["source", "destination"]


class WrongPage(Struct, frozen=True):
    """A page that is not as it was.

    Attributes:
        block: its RAMBlock.
        page: its number there, from 0.
        private: its state at the source, as the guest last announced it.
        private_at_destination: its state there.
    """

    block: str
    page: int
    private: bool
    private_at_destination: bool


class Comparison(Struct, frozen=True):
    """The destination beside the source, both stopped.

    Attributes:
        pages: compared: all there are.
        wrong_pages: which the destination's guest would read otherwise.
        wrong_states: how many pages are private at one end and shared at the other.
        told: the first twenty.
    """

    pages: int
    wrong_pages: int
    wrong_states: int
    told: tuple[WrongPage, ...] = ()


class Struck(Struct, frozen=True):
    """What was to go wrong.

    Attributes:
        fault: what, and in which round.
        struck: it did.
        error: how it was told; null if it did not.
    """

    fault: str
    struck: bool
    error: str | None


class Survival(Struct, frozen=True):
    """The source after a migration that did not end.

    Attributes:
        unchanged: what its guest reads, and its states, before and after the sessions' end.
        went_on: it has run since; null: all its vCPUs had halted before.
        as_undisturbed: all its pages and states are those of a guest that did the same and was
            never migrated; null where that cannot be had: a real guest, or threads.
    """

    unchanged: bool
    went_on: bool | None
    as_undisturbed: bool | None


class RoundPair(Struct, frozen=True):
    """A round as it was planned, and as it was; null where one has no such round.

    Attributes:
        planned: pages by road.
        rehearsed: likewise.
    """

    planned: Counts | None
    rehearsed: Counts | None


class Effort(Struct, frozen=True):
    """What the rehearsal itself took, on this machine.

    Attributes:
        seconds: moving pages.
        pages_per_s: of all roads.
        line_bytes: that went over the line.
    """

    seconds: float
    pages_per_s: float
    line_bytes: int


class DryRun(Struct, frozen=True, kw_only=True):
    """A migration that was rehearsed.

    Attributes:
        schema: ``kvmenc.dry-run/1``.
        verdict: ``whole``, ``wrong``, ``does-not-converge`` or ``lost``.
        reason: why, in words.
        runs_at: which end may run the guest now; null: none, or both.
        guest: in words.
        vcpus: how they were run.
        parts: what was real.
        protocol: how was synced, as ``kvmenc check-order`` calls it.
        ledger: what happened, as a plan tells it. Its time is computed, by the bandwidth and the
            firmware's rate that were asked for.
        capture: the guest before: what ``kvmenc backtest`` predicts from.
        plan: what was planned before, from that capture.
        rounds: of both, side by side.
        comparison: null if the guest did not get to the destination.
        fault: null: nothing was to go wrong.
        survival: null unless the guest stayed.
        effort: what it took.
    """

    schema: Literal["kvmenc.dry-run/1"] = "kvmenc.dry-run/1"
    verdict: Verdict
    reason: str
    runs_at: Where | None
    guest: str
    vcpus: str
    parts: tuple[Part, ...]
    protocol: str
    ledger: Plan
    capture: Capture
    plan: Plan
    rounds: tuple[RoundPair, ...]
    comparison: Comparison | None
    fault: Struck | None
    survival: Survival | None
    effort: Effort
