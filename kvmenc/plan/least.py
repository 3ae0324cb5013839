"""The least of a row of values that is good, when hardly any can be tried and luck plays in.

The verdict of a simulated migration is not quite a monotone function of bandwidth or downtime
limit: near the edge it matters where exactly a sync falls. So an answer counts only if its next
neighbours are good as well, and is marked where a smaller value turned out to be good too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["figures", "least_good"]

#: The figures of one decade: 2 to 5 % apart.
_FIGURES = (*range(100, 200, 5), *range(200, 500, 10), *range(500, 1000, 20))
#: About a factor of two.
_STRIDE = 23
#: So many larger neighbours must be good too.
_NEIGHBOURS = 2
#: So far up from the first good value good neighbours are looked for.
_REACH = 2 * _STRIDE


def figures(low: float, high: float) -> list[float]:
    """Numbers above ``low`` and up to ``high`` with at most three digits: easy to type."""
    decades = range(math.floor(math.log10(low)), math.floor(math.log10(high)) + 1)
    numbers = (float(f"{figure}e{power - 2}") for power in decades for figure in _FIGURES)
    return [number for number in numbers if low < number <= high]


def least_good(
    good: Callable[[int], bool], count: int, *, from_above: bool
) -> tuple[int, bool] | None:
    """Find the edge between bad and good by strides that double, then by bisection.

    Args:
        good: whether the value of an index is good; asked at most once for each.
        count: how many values there are, at least one.
        from_above: start at the largest value, which is good, and not at the smallest.

    Returns:
        The index, and whether no smaller value that was tried is good; None when none was found.
    """
    known = {count - 1: True} if from_above else {}

    def asked(index: int) -> bool:
        if index not in known:
            known[index] = good(index)
        return known[index]

    bracket = _down(asked, count) if from_above else _up(asked, count)
    if bracket is None:
        return None
    bad, found = bracket
    while found - bad > 1:
        middle = (bad + found) // 2
        bad, found = (bad, middle) if asked(middle) else (middle, found)
    firm = _firm(asked, found, count)
    return None if firm is None else (firm, not any(known[i] for i in known if i < firm))


def _up(good: Callable[[int], bool], count: int) -> tuple[int, int] | None:
    bad, stride = -1, _STRIDE
    while bad < count - 1:
        at = min(bad + stride, count - 1)
        if good(at):
            return bad, at
        bad, stride = at, stride * 2
    return None


def _down(good: Callable[[int], bool], count: int) -> tuple[int, int]:
    found, stride = count - 1, _STRIDE
    while found > 0:
        at = max(found - stride, 0)
        if not good(at):
            return at, found
        found, stride = at, stride * 2
    return -1, 0


def _firm(good: Callable[[int], bool], found: int, count: int) -> int | None:
    """The first from ``found`` on that is good together with its larger neighbours."""
    at, last = found, min(found + _REACH, count - 1)
    while at <= last:
        near = range(at, min(at + _NEIGHBOURS, count - 1) + 1)
        bad = next((index for index in near if not good(index)), None)
        if bad is None:
            return at
        at = bad + 1
    return None
