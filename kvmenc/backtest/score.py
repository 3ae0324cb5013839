"""Predictions against what happened: one run, and all of them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from kvmenc.backtest.predict import predict
from kvmenc.backtest.result import (
    FIELDS,
    PREDICTORS,
    FieldScore,
    Predicted,
    RunScore,
    Spread,
    Summary,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvmenc.backtest.predict import Prediction
    from kvmenc.backtest.result import Field, Predictor
    from kvmenc.backtest.run import Figures, Run

__all__ = ["score", "summarise"]


def score(run: Run) -> RunScore:
    """Predict a run, and compare."""
    predictions = _predictions(run)
    return RunScore(
        name=run.name,
        source=run.source,
        converged=run.figures.status == "completed",
        converges={name: it.converges for name, it in predictions.items()},
        fields=tuple(_fields(run.figures, predictions)),
        assumptions=run.assumptions,
        missing=run.missing,
        notes=run.notes,
    )


def _predictions(run: Run) -> dict[Predictor, Prediction]:
    """A run that was given up is asked about until then: whether it converges by that time."""
    if not run.capture or not run.parameters:
        return {}
    figures, parameters = run.figures, run.parameters
    if figures.status == "active" and figures.total_time:
        lasted_ms = max(1.0, figures.total_time - figures.setup_time)
        parameters = replace(parameters, time_limit_ms=lasted_ms)
    return predict(run.capture, parameters)


def _fields(figures: Figures, predictions: dict[Predictor, Prediction]) -> Iterator[FieldScore]:
    converged = figures.status == "completed"
    for field, actual in _actual(figures).items():
        predicted = {
            name: _predicted(actual, it.values.get(field) if it.converges == converged else None)
            for name, it in predictions.items()
        }
        yield FieldScore(field, actual, predicted)


def _actual(figures: Figures) -> dict[Field, float]:
    """The known figures. When a run was given up is no result of it, and remaining is one then."""
    ram, active = figures.ram, figures.status == "active"
    values: dict[Field, float | None] = {
        "total_time_ms": None if active else figures.total_time,
        "downtime_ms": figures.downtime,
        "transferred_bytes": ram.transferred,
        "dirty_sync_count": ram.dirty_sync_count,
        "normal_pages": ram.normal,
        "duplicate_pages": ram.duplicate,
        "remaining_bytes": ram.remaining if active else None,
    }
    return {field: value for field in FIELDS if (value := values[field]) is not None}


def _predicted(actual: float, value: float | None) -> Predicted:
    if value is None or not actual:
        return Predicted(value, None)
    return Predicted(value, (value - actual) / actual * 100)


def summarise(runs: Sequence[RunScore]) -> tuple[Summary, ...]:
    """Each predictor over the runs that could be predicted."""
    predicted = [run for run in runs if run.converges]
    return tuple(_summary(name, predicted) for name in PREDICTORS if predicted)


def _summary(predictor: Predictor, runs: Sequence[RunScore]) -> Summary:
    syncs = [
        abs(value - field.actual)
        for field in _of(runs, "dirty_sync_count")
        if (value := field.predicted[predictor].value) is not None
    ]
    return Summary(
        predictor=predictor,
        runs=len(runs),
        verdicts_right=sum(run.converges[predictor] == run.converged for run in runs),
        total_time=_spread(predictor, _of(runs, "total_time_ms")),
        downtime=_spread(predictor, _of(runs, "downtime_ms")),
        transferred=_spread(predictor, _of(runs, "transferred_bytes")),
        syncs=len(syncs),
        syncs_within_1=sum(off <= 1 for off in syncs),
    )


def _of(runs: Iterable[RunScore], field: Field) -> Iterator[FieldScore]:
    return (it for run in runs for it in run.fields if it.field == field)


def _spread(predictor: Predictor, fields: Iterable[FieldScore]) -> Spread | None:
    known = [field.predicted[predictor].error_percent for field in fields]
    errors = sorted(abs(error) for error in known if error is not None)
    if not errors:
        return None
    half = len(errors) // 2
    median = (errors[half] + errors[~half]) / 2
    return Spread(len(errors), median, errors[math.ceil(0.9 * len(errors)) - 1])
