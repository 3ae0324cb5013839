"""Precopy as most models have it: every round is sent to its end, then the next begins.

What both rivals have in common. QEMU does not do so: it keeps what is pending over a sync, and
syncs as soon as less than the threshold is pending (:mod:`kvmenc.plan.precopy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Rounds", "drain"]

#: More rounds than any migration has; each takes at least the downtime limit.
_MOST_ROUNDS = 100_000


@dataclass(frozen=True, slots=True)
class Rounds:
    """A migration that ends.

    Attributes:
        ms: length of each round; the guest is stopped in the last.
        sent_bytes: over all rounds.
    """

    ms: tuple[float, ...]
    sent_bytes: float

    @property
    def total_ms(self) -> float:
        """From start to end."""
        return sum(self.ms)


def drain(
    first_bytes: float,
    dirtied_bytes: Callable[[float], float],
    bytes_per_s: float,
    downtime_limit_ms: float,
    time_limit_ms: float,
) -> Rounds | None:
    """Send rounds until one is short enough.

    Args:
        first_bytes: in the first round.
        dirtied_bytes: to send in the round after one of so many ms.
        bytes_per_s: at which all is sent.
        downtime_limit_ms: the last round is no longer.
        time_limit_ms: given up when the total exceeds it.

    Returns:
        None when it does not converge.
    """
    rounds: list[float] = []
    pending, sent, total_ms = first_bytes, 0.0, 0.0
    while len(rounds) < _MOST_ROUNDS:
        ms = pending * 1000 / bytes_per_s
        rounds.append(ms)
        total_ms += ms
        sent += pending
        if ms <= downtime_limit_ms:
            return Rounds(tuple(rounds), sent)
        if total_ms > time_limit_ms:
            return None
        pending = dirtied_bytes(ms)
    return None
