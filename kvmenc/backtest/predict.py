"""What each predictor says of one migration, in the same words; each question is asked once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvmenc.backtest.geometric import Geometric
from kvmenc.backtest.rule2023 import Rule2023
from kvmenc.plan import interval_of, make_plan
from kvmenc.plan.compare import planned

if TYPE_CHECKING:
    from kvmenc.backtest.result import Field, Predictor
    from kvmenc.backtest.rounds import Rounds
    from kvmenc.capture import Capture
    from kvmenc.plan import Parameters, Plan, Profile
    from kvmenc.plan.result import Interval, PlannedRound

__all__ = ["Prediction", "Predictors", "Question", "predict"]


class Question(NamedTuple):
    """All that a predictor gets to know of a migration."""

    capture: Capture
    parameters: Parameters
    profile: Profile


class Prediction(NamedTuple):
    """What one predictor says.

    Attributes:
        converges: within the time limit, if there is one.
        values: those of the fields that it has something to say of.
        rounds: that send pages; a rival knows no roads, and says none.
    """

    converges: bool
    values: dict[Field, float]
    rounds: tuple[PlannedRound, ...] = ()


class Predictors:
    """All predictors, which remember what they said: repeats of a run share it."""

    def __init__(self) -> None:
        self._predictions: dict[Question, dict[Predictor, Prediction]] = {}
        self._intervals: dict[Question, Interval] = {}

    def predictions(self, question: Question) -> dict[Predictor, Prediction]:
        """What each of them says."""
        if question not in self._predictions:
            self._predictions[question] = predict(question)
        return self._predictions[question]

    def interval(self, question: Question) -> Interval:
        """How certain kvmenc is."""
        if question not in self._intervals:
            self._intervals[question] = interval_of(*question)
        return self._intervals[question]


def predict(question: Question) -> dict[Predictor, Prediction]:
    """Ask all predictors.

    The rivals know one bandwidth: the lesser of max-bandwidth and link.
    """
    capture, parameters, _ = question
    bandwidth = min(parameters.max_bandwidth_bytes_per_s, parameters.link)
    asked = bandwidth, parameters.downtime_limit_ms
    rule2023 = Rule2023.of(capture).rounds(*asked)
    geometric = Geometric.of(capture).rounds(*asked)
    return {
        "kvmenc": _of_plan(make_plan(*question)),
        "rule2023": _of_rounds(rule2023, parameters.time_limit_ms),
        "geometric": _of_rounds(geometric, parameters.time_limit_ms),
    }


def _of_rounds(rounds: Rounds | None, time_limit_ms: float | None) -> Prediction:
    """One sync begins each round, and QEMU makes one more when the guest has been stopped."""
    if rounds is None or rounds.total_ms > (time_limit_ms or rounds.total_ms):
        return Prediction(converges=False, values={})
    values: dict[Field, float] = {
        "total-time": rounds.total_ms,
        "bulk_ms": rounds.ms[0],
        "after_bulk_ms": sum(rounds.ms[1:]),
        "downtime": rounds.ms[-1],
        "transferred": rounds.sent_bytes,
        "dirty-sync-count": len(rounds.ms) + 1,
    }
    return Prediction(converges=True, values=values)


def _of_plan(plan: Plan) -> Prediction:
    return Prediction(plan.verdict == "converges", planned(plan), plan.rounds)
