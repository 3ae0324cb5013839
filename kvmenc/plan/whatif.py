"""One captured guest, migrated in thought as often as wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.plan.curve import DirtyCurve
from kvmenc.plan.precopy import simulate
from kvmenc.plan.profile import QEMU_10_0
from kvmenc.plan.roads import RoadCosts
from kvmenc.plan.sweep import Sweep

if TYPE_CHECKING:
    from kvmenc.capture import Capture
    from kvmenc.plan.precopy import Outcome
    from kvmenc.plan.profile import Parameters, Profile

__all__ = ["WhatIf", "converges"]


class WhatIf:
    """What different parameters would make of one guest.

    Attributes:
        capture: the guest.
        profile: whose rules are followed.
    """

    def __init__(self, capture: Capture, profile: Profile = QEMU_10_0) -> None:
        self.capture, self.profile = capture, profile
        self._curve = DirtyCurve.from_capture(capture)

    def outcome(self, parameters: Parameters, speed: float = 1.0) -> Outcome:
        """How a migration would go.

        Args:
            parameters: what the user decides.
            speed: the guest runs at this share of what it did, from the start on; as a model,
                it writes in proportion.
        """
        curve = self._curve if speed == 1 else self._curve.at_speed(speed)
        sweep = Sweep(self.capture.blocks, curve, self.profile.clear_pages)
        costs = RoadCosts(self.capture.page_size, parameters.link, parameters.private_rate_pps)
        return simulate(sweep, costs, parameters, self.profile)

    def converges(self, parameters: Parameters, speed: float = 1.0) -> bool:
        """Whether that migration would end, and in time."""
        return converges(self.outcome(parameters, speed), parameters)


def converges(outcome: Outcome, parameters: Parameters) -> bool:
    """Whether a migration ended, and in time."""
    in_time = outcome.total_ms <= (parameters.time_limit_ms or outcome.total_ms)
    return outcome.end == "completed" and in_time
