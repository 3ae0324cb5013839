"""When to look: dense at first, where a dirty curve bends most, then once a second.

What a guest writes within 50 or 100 ms depends on where in its own rhythm that falls, and decides
how a migration ends. So after a long window come short ones, each from a t = 0 of its own.
"""

from __future__ import annotations

import math

__all__ = [
    "MAX_WINDOW_S",
    "SHORT_S",
    "SLACK_S",
    "calc_time_s",
    "sample_times_ms",
    "window_lengths_s",
]

#: QEMU counts from before t = 0 is known, and looks may come late where the host is busy.
SLACK_S = 3.0
#: QEMU's calc-dirty-rate takes 60 s at most.
MAX_WINDOW_S = 60 - SLACK_S

#: A short window: QEMU measures whole seconds, and takes some of one to begin.
SHORT_S = 0.5
#: So many at most, each of which takes a second.
_SHORTS = 4

_DENSE_MS = (25.0, 50.0, 100.0, 200.0, 400.0, 700.0, 1000.0, 1500.0, 2000.0, 3000.0)


def window_lengths_s(seconds: float) -> tuple[float, ...]:
    """A capture of ``seconds``, in windows as long as QEMU logs without starting afresh."""
    shorts = max(0, min(_SHORTS, int(seconds / 2) - 1))
    whole, rest = divmod(seconds - shorts, MAX_WINDOW_S)
    lengths = [MAX_WINDOW_S] * int(whole)
    if rest >= 1 or not lengths:
        lengths.append(rest)
    return (*lengths, *[SHORT_S] * shorts)


def calc_time_s(window_s: float) -> int:
    """For how long QEMU must measure so that a window fits in, whole seconds."""
    return math.ceil(window_s + (SLACK_S if window_s > SHORT_S else SHORT_S))


def sample_times_ms(window_s: float) -> tuple[float, ...]:
    """When to look, in milliseconds after a window's start; the last is its end."""
    end_ms = window_s * 1e3
    steady = [1e3 * second for second in range(4, int(window_s) + 1)]
    times = [at for at in (*_DENSE_MS, *steady) if at < end_ms]
    return (*times, end_ms)
