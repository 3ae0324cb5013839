"""How much of a plan is chance.

A plan follows from a curve that was measured for some seconds, with errors, of a guest that will
not do exactly the same again. So the migration is planned anew many times, each time with a curve
that might have been measured as well:

- made of windows drawn from those of the capture: each saw the guest at another moment;
- its times moved together within their error, as t = 0 is what they all hang on;
- of a guest a little faster or slower: two real migrations of one guest differ by so much;
- at another moment of the guest's own rhythm, if it has one;
- with a throttle that has more or less of an effect, or none;
- with a pause a little longer or shorter: QEMU multiplies it by a bandwidth that it measures anew
  ten times a second.

The interval holds nine tenths of the plans that converge, and on both sides the grain of QEMU's
windows, within which it is chance where a sync falls; above, also what setting up takes longer
where it must wait for QEMU's lock. How much each of these is was chosen with the first 19 scenarios
of the back-test; how it holds for the others is in docs/backtest.md.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from kvmenc.capture import curve_of
from kvmenc.plan.parameters import MAX_DOWNTIME_LIMIT_MS
from kvmenc.plan.profile import QEMU_10_0
from kvmenc.plan.result import Interval
from kvmenc.plan.whatif import WhatIf, converges

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvmenc.capture import Capture, CurvePoint, Window
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.profile import Profile

__all__ = ["KNIFE_EDGE", "interval_of"]

#: A migration whose chance to converge lies between these is on a knife edge.
KNIFE_EDGE = (0.05, 0.95)

_DRAWS = 24
_SEED = 2019
#: How much one guest's pace differs from one migration to the next: the standard deviation.
_PACE = 0.02
#: And the bandwidth that QEMU measures from one window to the next.
_THRESHOLD = 0.01
#: What a throttled guest uses of the time left to it: each interruption costs more than the pause,
#: and one that idles makes up for it.
_THROTTLED = (0.6, 1.25)
#: One of so many guests is paced by a timer, and no throttle slows it: no capture tells.
_PACED = 12
#: Of a window, on both sides.
_GRAIN = 0.75
#: Setting up takes longer by so much, now and then.
_SETUP_MS = 50.0
#: Of the totals drawn, from here to as far from the other end.
_TAIL = 0.05
#: Fewer points are no curve.
_LEAST_POINTS = 2
#: Of the longest window: as much is long too.
_LONG = 0.9
#: The first look stays after t = 0.
_LEAST_MS = 1e-3


def interval_of(
    capture: Capture,
    parameters: Parameters,
    profile: Profile = QEMU_10_0,
    update: Callable[[float], object] = lambda _share: None,
) -> Interval:
    """The spread of plans of guests that the capture might as well have seen.

    Args:
        capture: the guest.
        parameters: of the migration.
        profile: whose rules are followed.
        update: told which share of the plans is made.
    """
    rng = np.random.default_rng(_SEED)
    windows = [one for one in capture.windows if len(one.points) >= _LEAST_POINTS]
    totals = []
    for draw in range(_DRAWS):
        curve = _moved(_redrawn(capture, windows, rng), rng)
        outcome = WhatIf(replace(capture, curve=curve), profile).outcome(
            _paused(parameters, 1 + rng.normal(0, _THRESHOLD)),
            speed=1 + rng.normal(0, _PACE),
            phase=rng.random(),
            throttled=math.inf if draw % _PACED == 0 else rng.uniform(*_THROTTLED),
        )
        if converges(outcome, parameters):
            totals.append(outcome.total_ms)
        update((draw + 1) / _DRAWS)
    probability = len(totals) / _DRAWS
    low_ms, high_ms = _bounds(totals, _GRAIN * profile.window_ms)
    return Interval(
        low_ms=low_ms,
        high_ms=high_ms,
        probability_converges=probability,
        knife_edge=KNIFE_EDGE[0] < probability < KNIFE_EDGE[1],
        basis="windows" if len(windows) > 1 else "one-window",
        plans=_DRAWS,
    )


def _paused(parameters: Parameters, factor: float) -> Parameters:
    limit_ms = min(parameters.downtime_limit_ms * factor, MAX_DOWNTIME_LIMIT_MS)
    return dataclasses.replace(parameters, downtime_limit_ms=limit_ms)


def _redrawn(
    capture: Capture, windows: Sequence[Window], rng: np.random.Generator
) -> tuple[CurvePoint, ...]:
    """The curve of as many windows, each drawn from all; a long one is always among them."""
    if len(windows) < 2:
        return capture.curve
    furthest_ms = max(it.points[-1].ms for it in windows)
    long = [it for it in windows if it.points[-1].ms >= _LONG * furthest_ms]
    drawn = rng.integers(0, len(windows), len(windows) - 1)
    return curve_of([long[rng.integers(0, len(long))], *(windows[i] for i in drawn)])


def _moved(curve: Sequence[CurvePoint], rng: np.random.Generator) -> tuple[CurvePoint, ...]:
    """All points earlier or later, none by more than its own error, or half of its time."""
    share = rng.uniform(-1, 1)
    points, last_ms = [], 0.0
    for point in curve:
        error_ms = min(point.error_ms, point.ms / 2)
        ms = max(point.ms + share * error_ms, last_ms + _LEAST_MS)
        points.append(replace(point, ms=ms))
        last_ms = ms
    return tuple(points)


def _bounds(totals: Sequence[float], grain_ms: float) -> tuple[float | None, float | None]:
    if not totals:
        return None, None
    low, high = np.quantile(totals, [_TAIL, 1 - _TAIL]).tolist()
    return max(0.0, low - grain_ms), high + grain_ms + _SETUP_MS
