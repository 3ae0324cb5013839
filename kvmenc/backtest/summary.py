"""Predictions against what happened, over all runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvmenc.backtest.measures import brier, median, share, spread, within
from kvmenc.backtest.result import PREDICTORS, RIVALS, Confidence, Ratio, Summary

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.backtest.result import Field, Predictor, RunScore, ScenarioScore

__all__ = ["RATIO_FIELDS", "confidence", "ratios", "summarise"]

#: Of these, errors are set against the rivals'.
RATIO_FIELDS: tuple[Field, ...] = (
    "total-time",
    "after_bulk_ms",
    "transferred",
    "dirty-sync-count",
    "downtime",
)
#: Total time may be off by so much of it, or by so many ms.
_TOTAL_WITHIN = 0.03, 100.0
#: The pause likewise.
_DOWNTIME_WITHIN = 0.2, 20.0


class _Pair(NamedTuple):
    """One field of one run that is known and predicted."""

    predicted: float
    actual: float
    error_percent: float | None


def summarise(runs: Sequence[RunScore]) -> tuple[Summary, ...]:
    """Each predictor over the runs that could be predicted."""
    predicted = [run for run in runs if run.converges]
    return tuple(_summary(name, predicted) for name in PREDICTORS if predicted)


def _summary(predictor: Predictor, runs: Sequence[RunScore]) -> Summary:
    def pairs(field: Field) -> list[_Pair]:
        return [pair for run in runs if (pair := _pair(run, field, predictor))]

    wrong = [run for run in runs if run.converges[predictor] != run.converged]
    converged = [run for run in runs if run.converged]
    syncs = [it for run in converged if (it := _pair(run, "dirty-sync-count", predictor))]
    total, downtime = pairs("total-time"), pairs("downtime")
    return Summary(
        predictor=predictor,
        runs=len(runs),
        verdicts_right=len(runs) - len(wrong),
        verdicts_wrong_outside_band=sum(not run.knife_edge for run in wrong),
        total_time=spread(_errors(total)),
        total_time_within=share(within(it.predicted, it.actual, *_TOTAL_WITHIN) for it in total),
        after_bulk=spread(_errors(pairs("after_bulk_ms"))),
        downtime=spread(_errors(downtime)),
        downtime_median_ms=median(abs(it.predicted - it.actual) for it in downtime),
        downtime_within=share(
            within(it.predicted, it.actual, *_DOWNTIME_WITHIN) for it in downtime
        ),
        transferred=spread(_errors(pairs("transferred"))),
        syncs=len(syncs),
        syncs_within_1=sum(abs(it.predicted - it.actual) <= 1 for it in syncs),
    )


def _pair(run: RunScore, field: Field, predictor: Predictor) -> _Pair | None:
    """A pause is scored only where it went over a network: a pipe's speed is nobody's link."""
    if field == "downtime" and run.transport != "tcp":
        return None
    for it in run.fields:
        value = it.predicted[predictor].value if it.field == field else None
        if value is not None:
            return _Pair(value, it.actual, it.predicted[predictor].error_percent)
    return None


def _errors(pairs: Sequence[_Pair]) -> Iterator[float]:
    return (it.error_percent for it in pairs if it.error_percent is not None)


def ratios(runs: Sequence[RunScore]) -> tuple[Ratio, ...]:
    """The planner's median error over each rival's, field by field."""
    predicted = [run for run in runs if run.converges]
    every = (_ratio(predicted, field, rival) for field in RATIO_FIELDS for rival in RIVALS)
    return tuple(ratio for ratio in every if ratio)


def _ratio(runs: Sequence[RunScore], field: Field, rival: Predictor) -> Ratio | None:
    """Over the runs in which both have an error: where a rival's verdict is wrong it has none."""
    both = [(_pair(run, field, "kvmenc"), _pair(run, field, rival)) for run in runs]
    errors = [
        (abs(one.error_percent), abs(other.error_percent))
        for one, other in both
        if one and other and one.error_percent is not None and other.error_percent is not None
    ]
    ours, theirs = median(one for one, _ in errors), median(other for _, other in errors)
    if ours is None or theirs is None:
        return None
    return Ratio(
        field=field,
        rival=rival,
        runs=len(errors),
        kvmenc_percent=ours,
        rival_percent=theirs,
        ratio=ours / theirs if theirs else None,
    )


def confidence(runs: Sequence[RunScore], scenarios: Sequence[ScenarioScore]) -> Confidence:
    """Whether what kvmenc states of its own certainty holds."""
    stated = [
        (run.interval.probability_converges, run.converged, run.knife_edge)
        for run in runs
        if run.interval
    ]
    in_band = [(it, happened) for it, happened, knife_edge in stated if knife_edge]
    intervals = list(_intervals(runs))
    return Confidence(
        scenarios_in_band=share(it.knife_edge for it in scenarios),
        runs_in_band=len(in_band),
        brier_in_band=brier(in_band),
        runs_stated=len(stated),
        brier=brier((it, happened) for it, happened, _ in stated),
        interval_holds=share(low <= total <= high for low, total, high in intervals),
        interval_width_percent=median(
            (high - low) / total * 100 for low, total, high in intervals if total
        ),
    )


def _intervals(runs: Sequence[RunScore]) -> Iterator[tuple[float, float, float]]:
    """Lower end, what it came to, and upper end, of runs that have all three; ms.

    A plan's interval is of the whole of QEMU's total-time, setting up included.
    """
    for run in runs:
        if not (run.converged and run.interval) or run.lasted_ms is None:
            continue
        low_ms, high_ms = run.interval.low_ms, run.interval.high_ms
        if low_ms is not None and high_ms is not None:
            yield low_ms, run.setup_ms + run.lasted_ms, high_ms
