"""Numbers that say how far off many predictions are."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kvmenc.backtest.result import Share, Spread

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["brier", "mean", "median", "p90", "range_percent", "share", "spread", "within"]


def median(values: Iterable[float]) -> float | None:
    """Half of them are at most this; None of none."""
    ordered = sorted(values)
    half = len(ordered) // 2
    return (ordered[half] + ordered[~half]) / 2 if ordered else None


def p90(values: Iterable[float]) -> float | None:
    """The least of them that nine tenths do not exceed; None of none."""
    ordered = sorted(values)
    return ordered[math.ceil(0.9 * len(ordered)) - 1] if ordered else None


def mean(values: Iterable[float]) -> float | None:
    """Their mean; None of none."""
    known = list(values)
    return sum(known) / len(known) if known else None


def spread(errors_percent: Iterable[float]) -> Spread | None:
    """Median and 90th percentile of errors without their sign; None of none."""
    sizes = [abs(error) for error in errors_percent]
    middle, most = median(sizes), p90(sizes)
    return None if middle is None or most is None else Spread(len(sizes), middle, most)


def share(facts: Iterable[bool]) -> Share:
    """How many are true."""
    known = list(facts)
    return Share(sum(known), len(known))


def within(predicted: float, actual: float, part: float, least: float) -> bool:
    """Whether a prediction is off by ``part`` of the actual or by ``least``, whichever is more."""
    return abs(predicted - actual) <= max(part * abs(actual), least)


def brier(stated: Iterable[tuple[float, bool]]) -> float | None:
    """The Brier score of probabilities and what happened: 0 is perfect, 1 the worst; None of none.

    Always saying one half gives 0.25.
    """
    return mean((probability - happened) ** 2 for probability, happened in stated)


def range_percent(values: Iterable[float]) -> float | None:
    """From the least to the largest, over their mean; None with fewer than two, or a mean of 0."""
    known = list(values)
    middle = mean(known)
    if len(known) <= 1 or not middle:
        return None
    return (max(known) - min(known)) / middle * 100
