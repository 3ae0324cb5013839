"""Predictions against what really happened.

The planner beside two rivals, the 2023 rule (:mod:`~kvmenc.backtest.rule2023`) and the geometric
series (:mod:`~kvmenc.backtest.geometric`): over the table that the first was published with, over
published migrations, and over runs given as files (:mod:`~kvmenc.backtest.run`). Nothing is fitted:
what a source does not say is named as an assumption, or the run is not predicted.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from kvmenc.backtest.geometric import Geometric
from kvmenc.backtest.grid import compare_grid
from kvmenc.backtest.predict import Predictors
from kvmenc.backtest.result import Backtest, UsedProfile
from kvmenc.backtest.rule2023 import Rule2023
from kvmenc.backtest.run import Run, load_run, published_runs
from kvmenc.backtest.scenarios import audit, by_scenario
from kvmenc.backtest.score import given_up_ms, score
from kvmenc.backtest.summary import confidence, ratios, summarise
from kvmenc.backtest.targets import targets
from kvmenc.plan import profile_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvmenc.backtest.result import Grid

__all__ = [
    "Backtest",
    "Geometric",
    "Rule2023",
    "Run",
    "backtest",
    "builtin_backtest",
    "load_run",
]


def builtin_backtest(update: Callable[[float], object] = lambda _share: None) -> Backtest:
    """The published table and the published migrations that come with this package.

    Args:
        update: told which share of the runs is predicted.
    """
    return _backtest(published_runs(), compare_grid(), update)


def backtest(
    runs: Sequence[Run], update: Callable[[float], object] = lambda _share: None
) -> Backtest:
    """Runs of one's own.

    Args:
        runs: at least one.
        update: told which share of them is predicted.
    """
    return _backtest(runs, None, update)


def _backtest(
    runs: Sequence[Run], grid: Grid | None, update: Callable[[float], object]
) -> Backtest:
    predictors, limits_ms = Predictors(), given_up_ms(runs)
    scores = []
    for run in runs:
        scores.append(score(run, predictors, limits_ms.get(run.scenario)))
        update(len(scores) / len(runs))
    scenarios, summary = by_scenario(scores), summarise(scores)
    sure, against, hard = confidence(scores, scenarios), ratios(scores), audit(scenarios)
    profiles = _profiles(runs)
    return Backtest(
        profile=", ".join(it.name for it in profiles),
        profiles=profiles,
        grid=grid,
        runs=tuple(scores),
        scenarios=scenarios,
        summary=summary,
        confidence=sure,
        ratios=against,
        audit=hard,
        targets=() if grid else targets(summary, sure, against, hard),
    )


def _profiles(runs: Sequence[Run]) -> tuple[UsedProfile, ...]:
    used = Counter(profile_for(run.qemu) for run in runs if run.capture)
    return tuple(UsedProfile(it.name, bool(it.proven), runs) for it, runs in used.items())
