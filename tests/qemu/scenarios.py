"""Guests and parameters for migrations that are predicted and then done.

A planner sees the capture only. RAM is 64 MiB, so caps are low: each migration lasts some seconds.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvmenc.plan import Parameters
from tests.qemu.guest import REGION_PAGES, Guest, Writer

__all__ = ["SCENARIOS", "Scenario"]

#: What a pipe into another process of this machine carries at least; only the pause goes at it.
PIPE_BYTES_PER_S = 1e9


@dataclass(frozen=True, slots=True)
class Scenario:
    """One guest and one way of migrating it.

    Attributes:
        name: of the scenario.
        guest: what runs.
        mb_per_s: QEMU's max-bandwidth.
        downtime_limit_ms: QEMU's downtime-limit.
    """

    name: str
    guest: Guest
    mb_per_s: float
    downtime_limit_ms: float = 300

    @property
    def parameters(self) -> Parameters:
        return Parameters(
            max_bandwidth_bytes_per_s=self.mb_per_s * 1e6,
            link_bytes_per_s=PIPE_BYTES_PER_S,
            downtime_limit_ms=self.downtime_limit_ms,
        )


def _busy(writer: Writer, filled_pages: int = REGION_PAGES) -> Guest:
    return Guest(filled_pages, REGION_PAGES // filled_pages, writer)


SCENARIOS = (
    Scenario("idle", Guest(REGION_PAGES), 12),
    Scenario("hot set far below the threshold", _busy(Writer(336, 336, 20)), 12),
    Scenario("hot set below the threshold", _busy(Writer(576, 576, 20)), 10),
    Scenario("hot set above the threshold", _busy(Writer(1344, 1344, 20)), 12),
    Scenario("hot set far above the threshold", _busy(Writer(4032, 4032, 40)), 12),
    Scenario("slow sweep, 2 MB/s", _busy(Writer(8064, 10, 20)), 10),
    Scenario("sweep at half the cap", _busy(Writer(8064, 25, 20)), 10),
    Scenario("sweep at three quarters of the cap", _busy(Writer(16128, 40, 20)), 11),
    Scenario("sweep faster than the cap", _busy(Writer(8064, 80, 20)), 10, 1000),
    Scenario("hot and cold", _busy(Writer(4032, 20, 20, hot_pages=300)), 10),
    Scenario("hot and cold, short pause", _busy(Writer(4032, 20, 20, hot_pages=300)), 16, 120),
    Scenario("hot and cold, long pause", _busy(Writer(5376, 60, 20, hot_pages=900)), 9, 2000),
    Scenario("three quarters zero", _busy(Writer(2016, 20, 20), REGION_PAGES // 4), 4),
    Scenario("fast link", _busy(Writer(8064, 200, 20)), 60, 50),
)
