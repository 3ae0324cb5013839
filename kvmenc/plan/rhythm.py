"""A guest that writes in bursts: on for a while, then off, and again.

A migration ends in the first pause that is long enough, however fast the guest writes else; its
mean curve alone never shows that. So a capture's looks of the first second of each window are taken
for a sample of moments: in which of them nothing new was written although more came later, or other
windows saw writes from the start on, the guest was off.

While it is on, the guest's time passes faster than ours, so that its curve holds on the average;
while it is off, it stands still. When the migration begins within the rhythm is not known: plans
are made for several moments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.capture import Capture, Window, WindowPoint

__all__ = ["ALWAYS_ON", "THROTTLED", "Pace", "Rhythm", "rhythm_of"]

#: Looks further apart than this see on and off mixed, unless they see nothing new.
_LONGEST_STRETCH_MS = 350.0
#: Looks closer than this may fall between two writes of a guest that is on.
_SHORTEST_STRETCH_MS = 40.0
#: Of the time that a throttle leaves: between a guest whose writes fell by the throttle alone
#: (tests/qemu/test_capabilities.py) and those of `make backtest`, where they fell to 0.82 of that.
THROTTLED = 0.9
#: Of the pace while on: less is off.
_QUIET = 0.05
#: Of the most pages that any look saw: a window that saw more may have no more to see.
_SATURATED = 0.8
#: A guest that writes less within the first second has no rhythm worth the name.
_LEAST_PAGES = 256
#: A run of looks with nothing new is a part of the pause that it lies in.
_UNSEEN = 1.15


@dataclass(frozen=True, slots=True)
class Rhythm:
    """On for so long, then off for so long.

    Attributes:
        on_ms: how long it writes.
        off_ms: how long it does not; 0: it always writes.
        phase: how much of a period has passed when the migration begins, 0 to 1.
    """

    on_ms: float
    off_ms: float
    phase: float = 0.0

    @property
    def period_ms(self) -> float:
        """From one burst's start to the next one's."""
        return self.on_ms + self.off_ms

    def speed(self, now_ms: float) -> float:
        """How fast the guest's time passes: 1 on the average."""
        if not self.off_ms:
            return 1.0
        return self.period_ms / self.on_ms if self._within(now_ms) < self.on_ms else 0.0

    def next_change_ms(self, now_ms: float) -> float:
        """When it next begins or ends to write."""
        if not self.off_ms:
            return math.inf
        within = self._within(now_ms)
        return now_ms + (self.on_ms if within < self.on_ms else self.period_ms) - within

    def _within(self, now_ms: float) -> float:
        return (now_ms + self.phase * self.period_ms) % self.period_ms


ALWAYS_ON = Rhythm(math.inf, 0.0)


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast a guest writes, of what its curve says.

    Attributes:
        speed: of the vCPUs, of what they had when they were watched.
        rhythm: in which they are on and off.
        throttled: how much of the time that QEMU's throttle leaves them is theirs in effect.
    """

    speed: float = 1.0
    rhythm: Rhythm = ALWAYS_ON
    throttled: float = THROTTLED

    def at(self, now_ms: float, throttle_pct: float) -> float:
        """How fast the guest's time passes."""
        share = self.throttled * (1 - throttle_pct / 100) if throttle_pct else 1.0
        return self.speed * min(1.0, share) * self.rhythm.speed(now_ms)


class _Stretch(NamedTuple):
    """Between two looks: its length, and pages newly written in it."""

    ms: float
    pages: float


def rhythm_of(capture: Capture) -> Rhythm:
    """What the windows show; always on where they show no pause."""
    windows = [stretches for it in capture.windows if (stretches := _telling(it))]
    grown = max((sum(it.pages for it in window) for window in windows), default=0)
    if grown < _LEAST_PAGES:
        return ALWAYS_ON
    most = max(_pages(point) for it in capture.windows for point in it.points)
    unsaturated = [_unsaturated(it, most) for it in windows]
    stretches = [it for window in unsaturated for it in window]
    pace = float(np.median([it.pages / it.ms for it in stretches if it.pages]))
    off_ms = max((run for it in unsaturated for run in _quiet_runs(it, pace)), default=0.0)
    whole_ms = sum(it.ms for it in stretches)
    on_share = sum(it.ms for it in stretches if not _quiet(it, pace)) / whole_ms
    if not off_ms or not on_share:
        return ALWAYS_ON
    off_ms *= _UNSEEN
    return Rhythm(off_ms * on_share / (1 - on_share), off_ms)


def _telling(window: Window) -> list[_Stretch]:
    """What lies between looks that are neither too close nor too far apart, from t = 0 on."""
    found, at_ms, seen = [], 0.0, 0
    for point in window.points:
        ms = point.ms - at_ms
        if ms < _SHORTEST_STRETCH_MS:
            continue
        pages = _pages(point)
        if ms > _LONGEST_STRETCH_MS and pages > seen:
            break
        found.append(_Stretch(ms, max(0, pages - seen)))
        at_ms, seen = point.ms, max(seen, pages)
    return found


def _pages(point: WindowPoint) -> int:
    return sum(point.private_pages) + sum(point.shared_pages)


def _unsaturated(window: Sequence[_Stretch], most: int) -> Sequence[_Stretch]:
    """Without an end in which nothing comes, where all was written that ever is."""
    if sum(it.pages for it in window) < _SATURATED * most:
        return window
    last = max(i for i, it in enumerate(window) if it.pages)
    return window[: last + 1]


def _quiet(stretch: _Stretch, pace: float) -> bool:
    return stretch.pages < _QUIET * pace * stretch.ms


def _quiet_runs(window: Sequence[_Stretch], pace: float) -> Iterator[float]:
    run_ms = 0.0
    for it in window:
        run_ms = run_ms + it.ms if _quiet(it, pace) else 0.0
        yield run_ms
