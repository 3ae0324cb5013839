"""How much a plan depends on what the capture happened to see.

A capture of several windows saw the guest several times: each window's own curve gives a plan of
its own, and their spread is the guest's. With one window only the errors of its times are known:
each point's time is drawn anew within its error, by a fixed seed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from msgspec.structs import replace

from kvmenc.capture import curve_of
from kvmenc.plan.profile import QEMU_10_0
from kvmenc.plan.result import Interval
from kvmenc.plan.whatif import WhatIf, converges

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.capture import Capture, CurvePoint
    from kvmenc.plan.profile import Parameters, Profile

__all__ = ["interval_of"]

_DRAWS = 20
_SEED = 2019
#: Fewer points are no curve.
_LEAST_POINTS = 2
#: Looks do not change places.
_LEAST_STEP_MS = 1e-3


def interval_of(
    capture: Capture, parameters: Parameters, profile: Profile = QEMU_10_0
) -> Interval | None:
    """The spread of plans; None where the capture says nothing of its own errors."""
    windows = [one for one in capture.windows if len(one.points) >= _LEAST_POINTS]
    if len(windows) > 1:
        curves = [curve_of((window,)) for window in windows]
    elif any(point.error_ms for point in capture.curve):
        rng = np.random.default_rng(_SEED)
        curves = [_drawn(capture.curve, rng) for _ in range(_DRAWS)]
    else:
        return None
    totals = _totals_ms([replace(capture, curve=curve) for curve in curves], parameters, profile)
    return Interval(
        low_ms=min(totals, default=None),
        high_ms=max(totals, default=None),
        probability_converges=len(totals) / len(curves),
        basis="windows" if len(windows) > 1 else "time-errors",
        plans=len(curves),
    )


def _drawn(curve: Sequence[CurvePoint], rng: np.random.Generator) -> tuple[CurvePoint, ...]:
    """The same points at times within their errors, in the same order."""
    points: list[CurvePoint] = []
    for point in curve:
        after = points[-1].ms if points else 0.0
        ms = point.ms + point.error_ms * rng.uniform(-1, 1)
        points.append(replace(point, ms=max(ms, after + _LEAST_STEP_MS)))
    return tuple(points)


def _totals_ms(
    captures: Sequence[Capture], parameters: Parameters, profile: Profile
) -> list[float]:
    """Total times of those that converge."""
    outcomes = (WhatIf(one, profile).outcome(parameters) for one in captures)
    return [outcome.total_ms for outcome in outcomes if converges(outcome, parameters)]
