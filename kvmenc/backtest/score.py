"""Predictions against what happened, one run at a time."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvmenc.backtest.predict import Question
from kvmenc.backtest.result import FieldScore, Predicted, RoundFigures, RoundScore, RunScore
from kvmenc.plan import profile_for
from kvmenc.plan.compare import beside, compare, happened
from kvmenc.plan.result import Counts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kvmenc.backtest.predict import Prediction, Predictors
    from kvmenc.backtest.result import Predictor
    from kvmenc.backtest.run import MeasuredRound, Run
    from kvmenc.plan.result import Interval, PlannedRound

__all__ = ["given_up_ms", "score"]


def given_up_ms(runs: Iterable[Run]) -> dict[str, float]:
    """After how long each scenario was given up, at least: no repeat of it lasted longer.

    Scenarios of which no repeat was given up are not in it.
    """
    longest: dict[str, float] = {}
    given_up: set[str] = set()
    for run in runs:
        lasted_ms = run.figures.lasted_ms
        if lasted_ms is not None:
            longest[run.scenario] = max(1.0, lasted_ms, longest.get(run.scenario, 0))
            if run.figures.status == "active":
                given_up.add(run.scenario)
    return {name: ms for name, ms in longest.items() if name in given_up}


def score(run: Run, predictors: Predictors, limit_ms: float | None = None) -> RunScore:
    """Predict a run, and compare.

    Args:
        run: what happened.
        predictors: who is asked.
        limit_ms: a repeat of it was given up after so long: it is asked what happens by then.
    """
    predictions = _predictions(run, predictors, limit_ms)
    return RunScore(
        name=run.name,
        source=run.source,
        scenario=run.scenario,
        transport=run.transport,
        profile=profile_for(run.qemu).name,
        converged=run.figures.status == "completed",
        lasted_ms=run.figures.lasted_ms,
        setup_ms=run.figures.setup_time,
        bulk_ms=run.bulk_ms,
        converges={name: it.converges for name, it in predictions.items()},
        interval=_interval(run, predictors, limit_ms),
        fields=tuple(_fields(run, predictions)),
        rounds=tuple(_rounds(run, predictions)),
        assumptions=run.assumptions,
        missing=run.missing,
        notes=run.notes,
    )


def _predictions(
    run: Run, predictors: Predictors, limit_ms: float | None
) -> dict[Predictor, Prediction]:
    """One that was given up itself is asked about until that very moment."""
    lasted_ms = run.figures.lasted_ms
    if run.figures.status == "active" and lasted_ms is not None:
        limit_ms = max(1.0, lasted_ms)
    question = _question(run, limit_ms)
    return predictors.predictions(question) if question else {}


def _interval(run: Run, predictors: Predictors, limit_ms: float | None) -> Interval | None:
    question = _question(run, limit_ms)
    return predictors.interval(question) if question else None


def _question(run: Run, limit_ms: float | None) -> Question | None:
    if not run.capture or not run.parameters:
        return None
    parameters = replace(run.parameters, time_limit_ms=limit_ms)
    return Question(run.capture, parameters, profile_for(run.qemu))


def _fields(run: Run, predictions: dict[Predictor, Prediction]) -> Iterator[FieldScore]:
    """The known figures; a prediction of one counts only with the right verdict."""
    converged = run.figures.status == "completed"
    actual = happened(run.figures, run.bulk_ms)
    pairs = {
        name: compare(it.values if it.converges == converged else {}, actual, tuple(actual))
        for name, it in predictions.items()
    }
    for number, (field, value) in enumerate(actual.items()):
        predicted = {
            name: Predicted(them[number].predicted, them[number].error_percent)
            for name, them in pairs.items()
        }
        yield FieldScore(field, value, predicted)


def _rounds(run: Run, predictions: dict[Predictor, Prediction]) -> Iterator[RoundScore]:
    """Likewise, by road; of a run that tells its rounds."""
    ours = predictions.get("kvmenc")
    if not run.rounds or not ours or ours.converges != (run.figures.status == "completed"):
        return
    for pair in beside(run.rounds, ours.rounds):
        stopped = any(it.stopped for it in pair if it)
        yield RoundScore(stopped, *map(_figures, pair))


def _figures(it: MeasuredRound | PlannedRound | None) -> RoundFigures | None:
    if it is None:
        return None
    pages, size = (Counts(of.normal, of.zero, of.encrypted) for of in (it.pages, it.bytes))
    return RoundFigures(it.ms, pages, size)
