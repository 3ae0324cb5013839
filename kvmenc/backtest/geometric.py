"""The geometric series: precopy of a guest with one dirty rate, for comparison only.

Every round sends what was dirtied at a constant rate during the round before, so rounds shrink by
the same factor, dirty rate over bandwidth. H. Liu et al., "Performance and energy modeling for live
migration of virtual machines", HPDC 2011, doi:10.1145/1996130.1996154; the sheets in which
migrations are planned by hand calculate so too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.backtest.rounds import drain
from kvmenc.plan.curve import DirtyCurve

if TYPE_CHECKING:
    from kvmenc.backtest.rounds import Rounds
    from kvmenc.capture import Capture

__all__ = ["Geometric"]

#: As QEMU's calc-dirty-rate is asked in its own documentation (QEMU 7.2, qapi/migration.json).
_MEASURED_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Geometric:
    """A guest as the series sees it.

    Attributes:
        memory_bytes: of the guest; all of it is sent in the first round.
        dirty_bytes_per_s: newly dirtied.
    """

    memory_bytes: float
    dirty_bytes_per_s: float

    @classmethod
    def of(cls, capture: Capture) -> Geometric:
        """The guest of a capture; its dirty rate is what is dirtied in one second from clean."""
        per_s = DirtyCurve.from_capture(capture).pages(_MEASURED_MS) * 1000 / _MEASURED_MS
        return cls(capture.npages * capture.page_size, per_s * capture.page_size)

    def rounds(self, bytes_per_s: float, downtime_limit_ms: float) -> Rounds | None:
        """Migrate at ``bytes_per_s``; None when it does not converge.

        With a dirty rate of the bandwidth or more no round is shorter than the first.
        """
        longest_ms = self.memory_bytes * 1000 / bytes_per_s
        if self.dirty_bytes_per_s >= bytes_per_s and longest_ms > downtime_limit_ms:
            return None
        return drain(
            self.memory_bytes,
            lambda ms: self.dirty_bytes_per_s * ms / 1000,
            bytes_per_s,
            downtime_limit_ms,
            float("inf"),
        )
