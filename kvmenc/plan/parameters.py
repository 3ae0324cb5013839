"""What the user decides of a migration."""

from __future__ import annotations

from dataclasses import dataclass

from kvmenc import units
from kvmenc.errors import InputError
from kvmenc.plan.roads import DEFAULT_PRIVATE_RATE_PPS

__all__ = ["CSV_BATCH_PAGES", "Parameters", "Xbzrle"]

#: QEMU's own default for max-bandwidth (QEMU 10.0, migration/options.c, MAX_THROTTLE).
DEFAULT_MAX_BANDWIDTH_BYTES_PER_S = 128.0 * 2**20
#: QEMU's own default for downtime-limit (QEMU 10.0, migration/options.c).
DEFAULT_DOWNTIME_LIMIT_MS = 300.0
#: QEMU's own default for xbzrle-cache-size (QEMU 10.0, migration/options.c).
DEFAULT_XBZRLE_CACHE_BYTES = 64.0 * 2**20
#: QEMU refuses more (QEMU 10.0, migration/options.c, MAX_MIGRATE_DOWNTIME_SECONDS).
MAX_DOWNTIME_LIMIT_MS = 2000e3
#: Pages that Hygon's QEMU hands to the firmware in one command (openEuler qemu-8.2.0,
#: CSV_OUTGOING_PAGE_WINDOW_SIZE).
CSV_BATCH_PAGES = 4094


@dataclass(frozen=True, slots=True)
class Xbzrle:
    """Pages sent again as the difference to what was sent before.

    Attributes:
        encoded_share: size of such a difference, of a page; the guest's writes decide it, and no
            capture knows it.
        cache_bytes: of the pages kept for it, QEMU's xbzrle-cache-size.

    Raises:
        InputError: a share not between 0 and 1, or a cache that QEMU would refuse.
    """

    encoded_share: float
    cache_bytes: float = DEFAULT_XBZRLE_CACHE_BYTES

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if not 0 < self.encoded_share <= 1:
            raise InputError(f"encoded_share must be over 0 and at most 1: {self.encoded_share:g}")
        if not 4096 <= self.cache_bytes < float("inf"):
            raise InputError(f"the xbzrle cache must hold a page, got {self.cache_bytes:g} bytes")


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the user decides.

    Attributes:
        max_bandwidth_bytes_per_s: QEMU's max-bandwidth, its cap while the guest runs.
        link_bytes_per_s: the network's speed; the stopped round goes at it. None: max-bandwidth.
        downtime_limit_ms: QEMU's downtime-limit.
        time_limit_ms: a longer migration counts as not converging. None: a year.
        private_rate_pps: private pages per second through the firmware.
        private_batch_pages: as many in one command; what QEMU sends never ends within one.
        send_buffer_bytes: what the connection takes at once while nothing is in it: to QEMU a page
            is sent when the kernel has it.
        auto_converge: QEMU's capability: vCPUs stand still ever longer until it converges.
        multifd_channels: QEMU's capability, with so many connections; 0: not used.
        xbzrle: QEMU's capability; None: not used.
        postcopy: QEMU's capability, begun after the first pass over RAM.

    Raises:
        InputError: a number that is not positive, a downtime limit that QEMU would refuse, or
            capabilities that it does not take together.
    """

    max_bandwidth_bytes_per_s: float = DEFAULT_MAX_BANDWIDTH_BYTES_PER_S
    link_bytes_per_s: float | None = None
    downtime_limit_ms: float = DEFAULT_DOWNTIME_LIMIT_MS
    time_limit_ms: float | None = None
    private_rate_pps: float = DEFAULT_PRIVATE_RATE_PPS
    private_batch_pages: int = 1
    send_buffer_bytes: float = 0.0
    auto_converge: bool = False
    multifd_channels: int = 0
    xbzrle: Xbzrle | None = None
    postcopy: bool = False

    def __post_init__(self) -> None:
        """Refuse what no migration could run with."""
        for name in _POSITIVE:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name} must be more than 0, got {value:g}")
        for name in ("send_buffer_bytes", "multifd_channels"):
            value = getattr(self, name)
            if not 0 <= value < float("inf"):
                raise InputError(f"{name} must be 0 or more, got {value:g}")
        if self.downtime_limit_ms > MAX_DOWNTIME_LIMIT_MS:
            given = units.format_time(self.downtime_limit_ms)
            raise InputError(f"a downtime limit of {given}: QEMU allows at most 2000 s")
        if self.xbzrle and self.multifd_channels:
            raise InputError("xbzrle and multifd: QEMU does not take both")

    @property
    def link(self) -> float:
        """The network's speed in bytes per second, given or not."""
        return self.link_bytes_per_s or self.max_bandwidth_bytes_per_s

    @property
    def live_bytes_per_s(self) -> float:
        """What goes over the network at most while the guest runs."""
        return min(self.max_bandwidth_bytes_per_s, self.link)


_POSITIVE = (
    "max_bandwidth_bytes_per_s",
    "link_bytes_per_s",
    "downtime_limit_ms",
    "time_limit_ms",
    "private_rate_pps",
    "private_batch_pages",
)
