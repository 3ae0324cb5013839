"""Zipf's law over any number of pages, without a table.

Method: W. Hoermann and G. Derflinger, Rejection-inversion to generate variates from monotone
discrete distributions, ACM TOMACS 6(3), 1996. It is exact, and takes 1.1 tries a number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ZipfRanks"]


class ZipfRanks:
    """Ranks 0 to count - 1; rank k has a weight of 1 / (k + 1)^exponent.

    Args:
        count: 1 or more.
        exponent: 0 (all alike) or more.
    """

    def __init__(self, count: int, exponent: float) -> None:
        self._count = count
        self._power = 1 - exponent
        self._exponent = exponent
        one_and_half, end = self._area(np.array([1.5, count + 0.5]))
        self._low, self._high = float(one_and_half) - 1, float(end)

    def draw(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """``size`` ranks."""
        ranks = np.empty(size, np.int64)
        filled = 0
        while filled < size:
            tried = self._try(size - filled, rng)
            ranks[filled : filled + tried.size] = tried
            filled += tried.size
        return ranks - 1

    def _try(self, size: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """As many ranks, from 1 on, as are taken of so many tries."""
        area = self._high + rng.random(size) * (self._low - self._high)
        near = np.clip(np.rint(self._inverse(area)), 1, self._count)
        taken = area >= self._area(near + 0.5) - near**-self._exponent
        return near[taken].astype(np.int64)

    def _area(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """The integral of t^-exponent from 1 to x."""
        log = np.log(x)
        return log if not self._power else np.expm1(self._power * log) / self._power

    def _inverse(self, area: NDArray[np.float64]) -> NDArray[np.float64]:
        if not self._power:
            return np.exp(area)
        # Rounding may carry the argument to -1 or below; the rank is cut to the last one then.
        return np.exp(np.log1p(np.maximum(self._power * area, -1 + 2**-52)) / self._power)
