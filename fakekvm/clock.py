"""The time that a fake device keeps: the machine's, or one that a test holds in its hand."""

from __future__ import annotations

import time
from typing import Protocol

__all__ = ["Clock", "HeldClock", "MachineClock"]

_SPIN_S = 300e-6  # a sleep may end so much too late


class Clock(Protocol):
    """Seconds from some moment on."""

    def now(self) -> float:
        """The time."""

    def wait_until(self, deadline: float) -> None:
        """Return at ``deadline``, or at once if that is over."""


class MachineClock:
    """Real time; on a busy machine a wait ends as late as everything else."""

    #: The time.
    now = staticmethod(time.perf_counter)

    def wait_until(self, deadline: float) -> None:
        """On time to some microseconds on an idle machine; others run meanwhile."""
        while (left := deadline - time.perf_counter()) > 0:
            time.sleep(max(left - _SPIN_S, 0))


class HeldClock:
    """Stands still, but for waits: they take no real time, and exactly theirs by this clock."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """The time."""
        return self._now

    def wait_until(self, deadline: float) -> None:
        """Go on to ``deadline``."""
        self._now = max(self._now, deadline)
