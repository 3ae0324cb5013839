"""What a look at page contents found: counts, shares with their confidence, one line of words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING, Self

import numpy as np

from kvmenc.encstate.ciphertext import FALSE_SHARED_PROBABILITY, PageClass

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "ContentReport", "Share"]

CONFIDENCE = 0.99


@dataclass(frozen=True, slots=True)
class Share:
    """A share of pages: its value, and the interval that holds the true one.

    If every page was read, the interval is a point; else it holds with ``CONFIDENCE``.
    """

    low: float
    value: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value * 100:.1f} %"
        return f"{self.value * 100:.1f} % ({self.low * 100:.1f} to {self.high * 100:.1f} %)"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContentReport:
    """How many pages of each class were seen.

    Attributes:
        total_pages: all pages of the slots; more than the classes add up to if sampled.
    """

    total_pages: int
    zero_pages: int
    shared_pages: int
    private_or_random_pages: int
    unread_pages: int

    @classmethod
    def of(cls, total_pages: int, classes: NDArray[np.uint8]) -> Self:
        """Count ``PageClass`` values."""
        zero, shared, private, unread = np.bincount(classes, minlength=len(PageClass)).tolist()
        return cls(
            total_pages=total_pages,
            zero_pages=zero,
            shared_pages=shared,
            private_or_random_pages=private,
            unread_pages=unread,
        )

    def __add__(self, other: Self) -> Self:
        return type(self)(
            total_pages=self.total_pages + other.total_pages,
            zero_pages=self.zero_pages + other.zero_pages,
            shared_pages=self.shared_pages + other.shared_pages,
            private_or_random_pages=self.private_or_random_pages + other.private_or_random_pages,
            unread_pages=self.unread_pages + other.unread_pages,
        )

    @property
    def read_pages(self) -> int:
        """Pages whose content was seen."""
        return self.zero_pages + self.shared_pages + self.private_or_random_pages

    @property
    def false_shared_pages(self) -> float:
        """At most so many of the pages called shared are private, in expectation."""
        return self.read_pages * FALSE_SHARED_PROBABILITY

    def share(self, npages: int) -> Share:
        """``npages`` of the pages read, as a share of all; Wilson's interval if sampled."""
        read = self.read_pages
        if not read:
            return Share(0.0, math.nan, 1.0)
        value = npages / read
        if read == self.total_pages:
            return Share(value, value, value)
        z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
        scale = 1 + z * z / read
        middle = (value + z * z / (2 * read)) / scale
        half = z / scale * math.sqrt(value * (1 - value) / read + (z / (2 * read)) ** 2)
        # Both ends lie beyond the value and within 0..1, but for rounding.
        low, high = max(0.0, middle - half), min(1.0, middle + half)
        return Share(min(low, value), value, max(high, value))

    @property
    def verdict(self) -> str:
        """The result in one line."""
        if not self.read_pages:
            return f"unknown: none of {self.unread_pages} pages could be read"
        return (
            f"{self._summary()}: {self.share(self.private_or_random_pages)} private or random, "
            f"{self.share(self.shared_pages)} shared, "
            f"{self.share(self.zero_pages)} zero (shared or never written); {self._basis()}"
        )

    def _summary(self) -> str:
        if not self.private_or_random_pages:
            return "nothing looks encrypted"
        if not self.shared_pages:
            return "all that was written looks encrypted or random"
        return "some pages hold plain data"

    def _basis(self) -> str:
        if self.read_pages == self.total_pages:
            return f"all {self.total_pages} pages read"
        unread = f", {self.unread_pages} unreadable" if self.unread_pages else ""
        confidence = f"{CONFIDENCE * 100:.0f} % confidence"
        return f"{self.read_pages} of {self.total_pages} pages read{unread}, {confidence}"
