"""What a sample without replacement says of all pages: an estimate, and bounds that hold.

The number of hits in a sample of n out of N pages, K of which are hits, is hypergeometric. The
bounds are those K that an exact test would not refuse, so nothing is approximated: they hold for
small samples and for rare hits, and meet when everything was drawn.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import exp, isqrt, lgamma

import numpy as np

__all__ = ["CONFIDENCE", "Estimate", "estimate"]

CONFIDENCE = 0.95

# What is left over at either end; a little less, as a probability among 2^28 pages is off by some
# 1e-6 of itself, with which the bounds only get wider.
_TAIL = (1 - CONFIDENCE) / 2 * (1 - 1e-5)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number of pages.

    Attributes:
        pages: the likeliest.
        low_pages: at least so many, and
        high_pages: at most so many, both at once with a probability of ``CONFIDENCE`` or more.
    """

    pages: int
    low_pages: int
    high_pages: int

    def __add__(self, known_pages: int) -> Estimate:
        """The same, with so many pages more of which it is certain."""
        return Estimate(
            self.pages + known_pages, self.low_pages + known_pages, self.high_pages + known_pages
        )


def estimate(hits: int, drawn: int, population: int, unsure: int = 0) -> Estimate:
    """How many of ``population`` pages are hits, if ``hits`` of ``drawn`` were.

    Args:
        hits: pages drawn that are hits.
        drawn: pages drawn, each with the same probability and none twice.
        population: pages drawn from.
        unsure: pages drawn that may be hits: only the upper bound counts them.
    """
    high = _most(hits + unsure, drawn, population)
    low = population - _most(drawn - hits, drawn, population)
    likeliest = round(hits * population / drawn) if drawn else 0
    return Estimate(min(max(likeliest, low), high), low, high)


def _most(hits: int, drawn: int, population: int) -> int:
    """The most hits in the population with which so few in the sample are not too unlikely."""
    # With ``low`` hits the mean of the sample is no more than ``hits``, which is likely enough.
    low = max(hits, hits * population // drawn) if drawn else population
    high = population - (drawn - hits)
    while low < high:
        middle = (low + high + 1) // 2
        if _at_most(hits, drawn, middle, population) > _TAIL:
            low = middle
        else:
            high = middle - 1
    return low


def _at_most(hits: int, drawn: int, marked: int, population: int) -> float:
    """P(X <= hits) for X hits in ``drawn`` of ``population``, ``marked`` of which are hits.

    For a mean of no less than ``hits``: there the terms fall from ``hits`` down, and by Hoeffding's
    inequality those left out, 20 sqrt(drawn) below, add up to less than exp(-800).
    """
    unmarked = population - marked
    log_first = (
        _log_choose(marked, hits)
        + _log_choose(unmarked, drawn - hits)
        - _log_choose(population, drawn)
    )
    count = np.arange(hits, max(hits - 20 * isqrt(drawn) - 20, 0), -1, dtype=np.float64)
    ratios = count / (marked - count + 1) * ((unmarked - drawn + count) / (drawn - count + 1))
    return exp(log_first) * (1 + float(np.cumprod(ratios).sum()))


def _log_choose(n: int, k: int) -> float:
    return lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1)
