"""What each predictor says of one migration, in the same words."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvmenc.backtest.geometric import Geometric
from kvmenc.backtest.rule2023 import Rule2023
from kvmenc.plan import make_plan

if TYPE_CHECKING:
    from kvmenc.backtest.result import Field, Predictor
    from kvmenc.backtest.rounds import Rounds
    from kvmenc.capture import Capture
    from kvmenc.plan import Parameters, Plan

__all__ = ["Prediction", "predict"]

#: A plan that gives up this near to the time limit has gone all the way.
_AT_THE_LIMIT = 0.01


class Prediction(NamedTuple):
    """What one predictor says.

    Attributes:
        converges: within the time limit, if there is one.
        values: those of the fields that it has something to say of.
    """

    converges: bool
    values: dict[Field, float]


def predict(capture: Capture, parameters: Parameters) -> dict[Predictor, Prediction]:
    """Ask all predictors.

    The rivals know one bandwidth: the lesser of max-bandwidth and link.
    """
    bandwidth = min(parameters.max_bandwidth_bytes_per_s, parameters.link)
    asked = bandwidth, parameters.downtime_limit_ms
    rule2023 = Rule2023.of(capture).rounds(*asked)
    geometric = Geometric.of(capture).rounds(*asked)
    return {
        "kvmenc": _of_plan(make_plan(capture, parameters)),
        "rule2023": _of_rounds(rule2023, parameters.time_limit_ms),
        "geometric": _of_rounds(geometric, parameters.time_limit_ms),
    }


def _of_rounds(rounds: Rounds | None, time_limit_ms: float | None) -> Prediction:
    """One sync begins each round, and QEMU makes one more when the guest has been stopped."""
    if rounds is None or rounds.total_ms > (time_limit_ms or rounds.total_ms):
        return Prediction(converges=False, values={})
    values: dict[Field, float] = {
        "total_time_ms": rounds.total_ms,
        "downtime_ms": rounds.ms[-1],
        "transferred_bytes": rounds.sent_bytes,
        "dirty_sync_count": len(rounds.ms) + 1,
    }
    return Prediction(converges=True, values=values)


def _of_plan(plan: Plan) -> Prediction:
    """Of a migration given up there is something to say only at the time limit itself."""
    answer, limit_ms = plan.query_migrate, plan.inputs.time_limit_ms
    converges = plan.verdict == "converges"
    if not converges and answer.total_time < (limit_ms or float("inf")) * (1 - _AT_THE_LIMIT):
        return Prediction(converges, {})
    values: dict[Field, float] = {
        "transferred_bytes": answer.ram.transferred,
        "dirty_sync_count": answer.ram.dirty_sync_count,
        "normal_pages": answer.ram.normal,
        "duplicate_pages": answer.ram.duplicate,
        "remaining_bytes": answer.ram.remaining,
    }
    if plan.total_time_ms is not None and plan.downtime_ms is not None:
        values |= {"total_time_ms": plan.total_time_ms, "downtime_ms": plan.downtime_ms}
    return Prediction(converges, values)
