"""When to look: dense at first, where a dirty curve bends most, then once a second."""

from __future__ import annotations

__all__ = ["MAX_WINDOW_S", "SLACK_S", "sample_times_ms", "window_lengths_s"]

#: QEMU counts from before t = 0 is known, and looks may come late where the host is busy.
SLACK_S = 3.0
#: QEMU's calc-dirty-rate takes 60 s at most.
MAX_WINDOW_S = 60 - SLACK_S

_DENSE_MS = (25.0, 50.0, 100.0, 200.0, 400.0, 700.0, 1000.0, 1500.0, 2000.0, 3000.0)


def window_lengths_s(seconds: float) -> tuple[float, ...]:
    """A capture of ``seconds``, in windows as long as QEMU logs without starting afresh."""
    whole, rest = divmod(seconds, MAX_WINDOW_S)
    lengths = [MAX_WINDOW_S] * int(whole)
    return (*lengths, rest) if rest >= 1 or not lengths else tuple(lengths)


def sample_times_ms(window_s: float) -> tuple[float, ...]:
    """When to look, in milliseconds after a window's start; the last is its end."""
    end_ms = window_s * 1e3
    steady = [1e3 * second for second in range(4, int(window_s) + 1)]
    times = [at for at in (*_DENSE_MS, *steady) if at < end_ms]
    return (*times, end_ms)
