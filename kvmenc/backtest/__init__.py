"""Predictions against what really happened.

The planner beside two rivals, the 2023 rule (:mod:`~kvmenc.backtest.rule2023`) and the geometric
series (:mod:`~kvmenc.backtest.geometric`): over the table that the first was published with, over
published migrations, and over runs given as files (:mod:`~kvmenc.backtest.run`). Nothing is fitted:
what a source does not say is named as an assumption, or the run is not predicted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.backtest.geometric import Geometric
from kvmenc.backtest.grid import compare_grid
from kvmenc.backtest.result import Backtest
from kvmenc.backtest.rule2023 import Rule2023
from kvmenc.backtest.run import Run, load_run, published_runs
from kvmenc.backtest.score import score, summarise
from kvmenc.plan import QEMU_10_0

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.backtest.result import Grid

__all__ = ["Backtest", "Geometric", "Rule2023", "Run", "backtest", "builtin_backtest", "load_run"]


def builtin_backtest() -> Backtest:
    """The published table and the published migrations that come with this package."""
    return _backtest(published_runs(), compare_grid())


def backtest(runs: Sequence[Run]) -> Backtest:
    """Runs of one's own."""
    return _backtest(runs, None)


def _backtest(runs: Sequence[Run], grid: Grid | None) -> Backtest:
    scores = tuple(score(run) for run in runs)
    return Backtest(profile=QEMU_10_0.name, grid=grid, runs=scores, summary=summarise(scores))
