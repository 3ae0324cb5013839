"""What differs from one QEMU to the next, and what the user sets: data, no behaviour."""

from __future__ import annotations

from dataclasses import dataclass

from kvmenc.errors import InputError
from kvmenc.plan.roads import DEFAULT_PRIVATE_RATE_PPS

__all__ = ["QEMU_10_0", "Parameters", "Profile"]

#: QEMU's own default for max-bandwidth (QEMU 10.0, migration/options.c, MAX_THROTTLE).
DEFAULT_MAX_BANDWIDTH_BYTES_PER_S = 128.0 * 2**20
#: QEMU's own default for downtime-limit (QEMU 10.0, migration/options.c).
DEFAULT_DOWNTIME_LIMIT_MS = 300.0
#: QEMU refuses more (QEMU 10.0, migration/options.c, MAX_MIGRATE_DOWNTIME_SECONDS).
MAX_DOWNTIME_LIMIT_MS = 2000e3


@dataclass(frozen=True, slots=True)
class Profile:
    """The constants of one QEMU's precopy.

    Attributes:
        name: as a plan names it.
        window_ms: the rate limit and the measured bandwidth are per window (BUFFER_DELAY).
        slice_ms: one call to send pages ends after this long (more than MAX_WAIT, in whole ms).
        clock_pages: it looks at the clock after the first page and then every so many.
        clear_pages: the dirty log is cleared in chunks of this size as the sending reaches them
            (clear_bmap_shift; needs KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2).
        sync_ms: what a sync takes at least; it grows with memory, which is not counted yet.
        compared: which real migrations these rules were compared with, in words.
    """

    name: str
    window_ms: float
    slice_ms: float
    clock_pages: int
    clear_pages: int
    sync_ms: float
    compared: str


#: QEMU 10.0, migration/migration.c and migration/ram.c.
QEMU_10_0 = Profile(
    "qemu-10.0", 100, 51, 64, 2**18, 1, "real runs of 7.2 fit them, 10.0 itself was not compared"
)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the user decides.

    Attributes:
        max_bandwidth_bytes_per_s: QEMU's max-bandwidth, its cap while the guest runs.
        link_bytes_per_s: the network's speed; the stopped round goes at it. None: max-bandwidth.
        downtime_limit_ms: QEMU's downtime-limit.
        time_limit_ms: a longer migration counts as not converging. None: a year.
        private_rate_pps: private pages per second through the firmware.

    Raises:
        InputError: a number that is not positive, or a downtime limit that QEMU would refuse.
    """

    max_bandwidth_bytes_per_s: float = DEFAULT_MAX_BANDWIDTH_BYTES_PER_S
    link_bytes_per_s: float | None = None
    downtime_limit_ms: float = DEFAULT_DOWNTIME_LIMIT_MS
    time_limit_ms: float | None = None
    private_rate_pps: float = DEFAULT_PRIVATE_RATE_PPS

    def __post_init__(self) -> None:
        """Refuse what no migration could run with."""
        for name in self.__slots__:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} must be more than 0, got {value:g}")
        if self.downtime_limit_ms > MAX_DOWNTIME_LIMIT_MS:
            raise InputError(
                f"downtime_limit_ms is {self.downtime_limit_ms:g}: QEMU allows at most 2000 s"
            )

    @property
    def link(self) -> float:
        """The network's speed in bytes per second, given or not."""
        return self.link_bytes_per_s or self.max_bandwidth_bytes_per_s
