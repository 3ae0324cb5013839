"""Repeats of one scenario together, and what the scenarios are like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.backtest.measures import mean, median, range_percent, share
from kvmenc.backtest.result import PREDICTORS, Audit, FieldScore, Predicted, ScenarioScore
from kvmenc.plan.compare import FIELDS, FieldPair

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.backtest.result import Field, Predictor, RunScore

__all__ = ["audit", "by_scenario"]

#: More of the time than this is most of it.
_HALF_PERCENT = 50
_MANY_SYNCS = 10


def by_scenario(runs: Sequence[RunScore]) -> tuple[ScenarioScore, ...]:
    """The runs that could be predicted, repeats of a scenario together."""
    repeats: dict[str, list[RunScore]] = {}
    for run in runs:
        if run.converges:
            repeats.setdefault(run.scenario, []).append(run)
    return tuple(_scenario(name, them) for name, them in repeats.items())


def _scenario(name: str, runs: Sequence[RunScore]) -> ScenarioScore:
    lasted_ms = [run.lasted_ms for run in runs if run.lasted_ms is not None]
    totals_ms = [it.actual for run in runs for it in run.fields if it.field == "total-time"]
    return ScenarioScore(
        name=name,
        runs=len(runs),
        converged=sum(run.converged for run in runs),
        converges={it: sum(run.converges[it] for run in runs) for it in PREDICTORS},
        probability_converges=mean(
            run.interval.probability_converges for run in runs if run.interval
        ),
        knife_edge=any(run.knife_edge for run in runs),
        spread_percent=range_percent(totals_ms),
        after_bulk_percent=mean(_after_bulk_percent(runs)),
        shortest_ms=min(lasted_ms, default=None),
        fields=tuple(_fields(runs)),
    )


def _after_bulk_percent(runs: Sequence[RunScore]) -> Iterator[float]:
    for run in runs:
        if run.bulk_ms is not None and run.lasted_ms:
            yield max(0.0, run.lasted_ms - run.bulk_ms) / run.lasted_ms * 100


def _fields(runs: Sequence[RunScore]) -> Iterator[FieldScore]:
    for field in FIELDS:
        known = [it for run in runs for it in run.fields if it.field == field]
        actual = mean(it.actual for it in known)
        if actual is not None:
            predicted = {name: _predicted(field, actual, name, known) for name in PREDICTORS}
            yield FieldScore(field, actual, predicted)


def _predicted(
    field: Field, actual: float, predictor: Predictor, known: Sequence[FieldScore]
) -> Predicted:
    values = [it.predicted[predictor].value for it in known]
    pair = FieldPair(field, mean(it for it in values if it is not None), actual)
    return Predicted(pair.predicted, pair.error_percent)


def audit(scenarios: Sequence[ScenarioScore]) -> Audit:
    """How hard they are: a migration that is all bulk is easy to predict."""
    after_bulk = [it.after_bulk_percent for it in scenarios]
    syncs = [it.actual for one in scenarios for it in one.fields if it.field == "dirty-sync-count"]
    shortest_ms = [it.shortest_ms for it in scenarios if it.shortest_ms is not None]
    spreads = (it.spread_percent for it in scenarios)
    return Audit(
        scenarios=len(scenarios),
        least_runs=min((it.runs for it in scenarios), default=None),
        mostly_after_bulk=share(it > _HALF_PERCENT for it in after_bulk if it is not None),
        ten_syncs=share(it >= _MANY_SYNCS for it in syncs),
        shortest_ms=min(shortest_ms, default=None),
        spread_percent=median(it for it in spreads if it is not None),
    )
