"""Auto-converge: when QEMU slows the vCPUs, by how much, and the guest's own clock then.

QEMU 10.0, migration/ram.c, ``migration_trigger_throttle``: where a period of over a second dirtied
more than half the bytes that were sent in it, for the second time, vCPUs stand still for 20 % of
the time, and for 10 % more each time again, up to 99 %. Of the timer (system/cpu-throttle.c) a vCPU
gets the rest.

A guest that is throttled writes less in proportion, and some less for being interrupted, as far as
its vCPUs were busy all the time: one that idles half of the time makes up for it. A capture does
not know which it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["MAX_THROTTLE_PCT", "GuestClock", "SyncTimer", "Throttle"]

#: QEMU 10.0, migration/options.c, the defaults of throttle-trigger-threshold,
#: cpu-throttle-initial, cpu-throttle-increment and max-cpu-throttle.
_TRIGGER = 0.5
_FIRST_PCT, _STEP_PCT, MAX_THROTTLE_PCT = 20, 10, 99


@dataclass(slots=True)
class Throttle:
    """QEMU's decision to throttle.

    Attributes:
        enabled: whether the capability is on.
        pct: of the time vCPUs stand still.
        high: periods that dirtied too much, since it was last raised.
    """

    enabled: bool
    pct: int = 0
    high: int = 0

    def period_ended(self, dirtied_bytes: float, sent_bytes: float) -> bool:
        """Say what was dirtied and sent between two syncs; returns whether it is raised."""
        if not self.enabled or dirtied_bytes <= sent_bytes * _TRIGGER:
            return False
        self.high += 1
        if self.high < 2:
            return False
        self.high, before = 0, self.pct
        self.pct = min(self.pct + _STEP_PCT, MAX_THROTTLE_PCT) if self.pct else _FIRST_PCT
        return self.pct > before

    @property
    def may_rise(self) -> bool:
        """Whether it is not at its end."""
        return self.enabled and self.pct < MAX_THROTTLE_PCT


@dataclass(slots=True)
class GuestClock:
    """The guest's time, which passes at ``speed`` of ours.

    Attributes:
        speed: of the vCPUs, 1 is what they had when they were watched.
        since_ms: our time when the speed changed.
        at_ms: the guest's time then.
    """

    speed: float = 1.0
    since_ms: float = 0.0
    at_ms: float = 0.0

    def ms(self, now_ms: float) -> float:
        """The guest's time at ours."""
        return self.at_ms + (now_ms - self.since_ms) * self.speed

    def change(self, now_ms: float, speed: float) -> None:
        """From now on it passes at ``speed``."""
        self.at_ms, self.since_ms, self.speed = self.ms(now_ms), now_ms, speed


@dataclass(slots=True)
class SyncTimer:
    """With auto-converge QEMU 10.0 syncs where none was made from one tick of a timer to the next.

    Attributes:
        every_ms: from tick to tick; None: there is no timer.
        ticks: so far.
        syncs: had been made at the last tick.
    """

    every_ms: float | None
    ticks: int = 0
    syncs: int = 0

    @property
    def next_ms(self) -> float:
        """When the next tick is."""
        return math.inf if self.every_ms is None else (self.ticks + 1) * self.every_ms

    def rings(self, now_ms: float, syncs: int) -> bool:
        """Whether a sync is due; nothing is during the first pass over RAM."""
        if now_ms < self.next_ms:
            return False
        assert self.every_ms is not None
        self.ticks = int(now_ms / self.every_ms)
        due, self.syncs = syncs == self.syncs > 1, syncs
        return due
