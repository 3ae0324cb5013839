"""When to give up a simulated migration that a real QEMU would go on with for ever."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

__all__ = ["Stall"]

#: Shares of RAM are summed up in floating point.
_ROUNDING = 1e-6


@dataclass(slots=True)
class Stall:
    """Whether the least that stays pending still falls towards the threshold.

    While the guest does not change its ways, the gain of the last three times over all RAM over the
    three before will not grow: if a hundred times as much would not do, nothing will.

    Attributes:
        least_ms: what such a time takes at least.
        lows: the least bytes pending after any sync, once for each such time.
        passes: how often the cursor had been over all RAM at the last of them.
        since_ms: when that was.
        low: the least since then.
    """

    least_ms: float
    lows: list[float] = field(default_factory=list)
    passes: float = 1.0
    since_ms: float = 0.0
    low: float = math.inf

    def note(self, pending_bytes: float, passes: float, now_ms: float) -> None:
        """A sync left so much pending, with the cursor so many times over all RAM."""
        self.low = min(self.low, pending_bytes)
        if passes >= self.passes + 1 - _ROUNDING and now_ms >= self.since_ms + self.least_ms:
            self.lows.append(self.low)
            self.passes, self.since_ms, self.low = passes, now_ms, math.inf

    def hopeless(self, threshold_bytes: float) -> bool:
        """Whether the threshold will not be reached."""
        if len(self.lows) < 6:
            return False
        before, now = min(self.lows[-6:-3]), min(self.lows[-3:])
        return (before - now) * 100 < now - threshold_bytes
