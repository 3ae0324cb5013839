"""How long commands of the firmware take, in batches of sending and receiving in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = ["Clock", "Rate"]

_LEAST_BATCHES = 3


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """What one kind of command takes.

    Attributes:
        command: its kernel name.
        pages_per_command: more than one in Hygon's batches.
        pages: as many were measured.
        batches: in so many batches.
        pages_per_s: median over batches.
        slow_pages_per_s: nine batches of ten were quicker.
        quick_pages_per_s: nine of ten were slower.
        latency_p50_ms: of a command.
        latency_p99_ms: likewise.
    """

    command: str
    pages_per_command: int = 1
    pages: int
    batches: int
    pages_per_s: float
    slow_pages_per_s: float
    quick_pages_per_s: float
    latency_p50_ms: float
    latency_p99_ms: float

    @property
    def spread(self) -> float:
        """From the slow to the quick tenth of batches, as a share of the median."""
        return (self.quick_pages_per_s - self.slow_pages_per_s) / self.pages_per_s


class Clock:
    """Times of batches sent and received.

    Args:
        send: carries out the commands for these packets and pages.
        receive: likewise.
        per_command: pages that one call takes.
        now: the time in seconds.
    """

    def __init__(
        self,
        send: Callable[[slice, Sequence[int]], None],
        receive: Callable[[slice, Sequence[int]], None],
        per_command: int,
        now: Callable[[], float],
    ) -> None:
        self._ways = (send, receive)
        self._per_command = per_command
        self._now = now
        self._seconds: tuple[list[list[float]], list[list[float]]] = ([], [])

    def run(
        self, rounds: Iterator[list[int]], seconds: float, update: Callable[[float], object]
    ) -> None:
        """Measure batches until the time is over."""
        start = self._now()
        while (done := self._now() - start) < seconds or self._count < _LEAST_BATCHES:
            update(done)
            pages = next(rounds)
            for carry_out, batches in zip(self._ways, self._seconds, strict=True):
                batches.append(list(self._timed(carry_out, pages)))

    @property
    def _count(self) -> int:
        return len(self._seconds[1])

    def _timed(
        self, carry_out: Callable[[slice, Sequence[int]], None], pages: list[int]
    ) -> Iterator[float]:
        for first in range(0, len(pages), self._per_command):
            part = slice(first, first + self._per_command)
            before = self._now()
            carry_out(part, pages[part])
            yield self._now() - before

    def rates(self, send: str, receive: str) -> tuple[Rate, Rate]:
        """Of both ways, under these names."""
        return self._rate(send, 0), self._rate(receive, 1)

    def _rate(self, command: str, way: int) -> Rate:
        latencies = np.array(self._seconds[way])
        rates = self._per_command * latencies.shape[1] / latencies.sum(axis=1)
        slow, median, quick = np.percentile(rates, (10, 50, 90)).tolist()
        p50, p99 = (1e3 * np.percentile(latencies, (50, 99))).tolist()
        return Rate(
            command=command,
            pages_per_command=self._per_command,
            pages=latencies.size * self._per_command,
            batches=len(latencies),
            pages_per_s=median,
            slow_pages_per_s=slow,
            quick_pages_per_s=quick,
            latency_p50_ms=p50,
            latency_p99_ms=p99,
        )
