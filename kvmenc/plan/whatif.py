"""One captured guest, migrated in thought as often as wanted."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from kvmenc.errors import InputError
from kvmenc.plan.curve import DirtyCurve
from kvmenc.plan.overheads import Overheads
from kvmenc.plan.precopy import Precopy
from kvmenc.plan.profile import QEMU_10_0
from kvmenc.plan.rhythm import THROTTLED, Pace, rhythm_of
from kvmenc.plan.roads import RoadCosts
from kvmenc.plan.sweep import Sweep

if TYPE_CHECKING:
    from kvmenc.capture import Capture
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.precopy import Outcome
    from kvmenc.plan.profile import Profile

__all__ = ["WhatIf", "converges"]

#: Odd, so that one is in the middle.
_PHASES = 5


class WhatIf:
    """What different parameters would make of one guest.

    Attributes:
        capture: the guest.
        profile: whose rules are followed.
    """

    def __init__(self, capture: Capture, profile: Profile = QEMU_10_0) -> None:
        self.capture, self.profile = capture, profile
        self._curve, self._overheads = DirtyCurve.from_capture(capture), Overheads.of(capture)
        self._rhythm = rhythm_of(capture)

    def outcome(
        self,
        parameters: Parameters,
        speed: float = 1.0,
        phase: float | None = None,
        throttled: float = THROTTLED,
    ) -> Outcome:
        """How a migration would go.

        Args:
            parameters: what the user decides.
            speed: the guest runs at this share of what it did, from the start on; as a model,
                it writes in proportion.
            phase: at which moment of its rhythm, 0 to 1; None: the one in the middle of several, by
                how long it takes.
            throttled: of the time that QEMU's throttle leaves its vCPUs, how much they use.

        Raises:
            InputError: postcopy of a guest with private pages.
        """
        if parameters.postcopy and self.capture.private_pages:
            raise InputError(
                "postcopy cannot take private pages: nobody has written the receiving side"
            )
        if phase is not None or not self._rhythm.off_ms:
            return self._simulate(parameters, self._pace(speed, phase or 0.0, throttled))
        paces = [self._pace(speed, it / _PHASES, throttled) for it in range(_PHASES)]
        outcomes = [self._simulate(parameters, pace) for pace in paces]
        outcomes.sort(key=lambda it: (not converges(it, parameters), it.total_ms))
        return outcomes[_PHASES // 2]

    def _pace(self, speed: float, phase: float, throttled: float) -> Pace:
        return Pace(speed, replace(self._rhythm, phase=phase), throttled)

    def _simulate(self, parameters: Parameters, pace: Pace) -> Outcome:
        sweep = Sweep(self.capture.blocks, self._curve, self.profile.clear_pages)
        costs = RoadCosts(self.capture.page_size, parameters, self.profile)
        return Precopy(sweep, costs, self._overheads, parameters, self.profile, pace).run()

    def converges(self, parameters: Parameters, speed: float = 1.0) -> bool:
        """Whether that migration would end, and in time."""
        return converges(self.outcome(parameters, speed), parameters)


def converges(outcome: Outcome, parameters: Parameters) -> bool:
    """Whether a migration ended, and in time."""
    in_time = outcome.total_ms <= (parameters.time_limit_ms or outcome.total_ms)
    return outcome.end == "completed" and in_time
