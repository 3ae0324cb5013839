"""What a simulated migration writes down: its rounds, and the counters that QEMU itself keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import NamedTuple

from kvmenc.plan.roads import ByRoad

__all__ = ["Counters", "Ledger", "Round"]

#: Less is no time.
_ROUNDING_MS = 1e-6


@dataclass(slots=True)
class Round:
    """From one sync to the next.

    Attributes:
        dirty_pages: pending at its start.
        private_pages: of these private.
        ms: its length.
        sent: pages sent, by road.
        bytes_per_page: of these on the wire.
        stopped: whether the guest was stopped.
    """

    dirty_pages: float
    private_pages: float
    ms: float = 0.0
    sent: ByRoad = field(default_factory=ByRoad)
    bytes_per_page: ByRoad = field(default_factory=ByRoad)
    stopped: bool = False


class Ledger:
    """The rounds so far; the last one is still going on.

    Attributes:
        rounds: oldest first.
    """

    def __init__(self, pending: ByRoad) -> None:
        self.rounds = [Round(sum(pending), pending.encrypted)]
        self._start_ms = 0.0

    def close_round(self, now_ms: float, sent: ByRoad) -> None:
        """The round ends here; so many pages were sent in it."""
        self.rounds[-1].ms = now_ms - self._start_ms
        self.rounds[-1].sent = sent

    def next_round(self, now_ms: float, sent: ByRoad, pending: ByRoad) -> None:
        """A sync ends the round and starts the next."""
        self.close_round(now_ms, sent)
        self.rounds.append(Round(sum(pending), pending.encrypted))
        self._start_ms = now_ms


class Period(NamedTuple):
    """Between two syncs over a second apart, and any others between these.

    Attributes:
        new_pages: newly dirty.
        sent_bytes: sent meanwhile.
    """

    new_pages: float
    sent_bytes: float


@dataclass(slots=True)
class Counters:
    """QEMU's own figures, taken when and how QEMU takes them.

    QEMU 10.0, migration/migration.c, ``migration_update_counters``; migration/ram.c,
    ``migration_bitmap_sync``.

    Attributes:
        downtime_limit_ms: the downtime-limit parameter.
        threshold_bytes: pending below this lets the guest be stopped; 0 until the first window.
        bandwidth_bytes_per_ms: of the last window.
        pages_per_second: of the last window.
        expected_downtime_ms: what was pending after the last sync over the bandwidth.
        dirty_pages_rate: newly dirty pages per second, over more than a second.
        sync_count: dirty-sync-count; setting up makes the first.
        sent_bytes: of pages, so far.
        other_bytes: of what else stands in the stream.
        known_pages: sent as the difference to what xbzrle knew.
        throttle_pct: how much of the time vCPUs stand still at the end.
    """

    downtime_limit_ms: float
    expected_downtime_ms: float
    threshold_bytes: int = 0
    bandwidth_bytes_per_ms: float = 0.0
    pages_per_second: float = 0.0
    dirty_pages_rate: float = 0.0
    sync_count: int = 1
    sent_bytes: float = 0.0
    other_bytes: float = 0.0
    known_pages: float = 0.0
    throttle_pct: int = 0
    _sent_before: float = 0.0
    _pending_bytes: float = 0.0
    _new_pages: float = 0.0
    _since_ms: float = 0.0

    def window_ended(self, sent_bytes: float, sent_pages: float, ms: float) -> None:
        """A rate-limit window of ``ms`` is over; QEMU's clock has whole milliseconds."""
        ms = max(1.0, math.floor(ms + _ROUNDING_MS))
        self.bandwidth_bytes_per_ms = sent_bytes / ms
        self.pages_per_second = sent_pages / ms * 1000
        self.threshold_bytes = int(self.bandwidth_bytes_per_ms * self.downtime_limit_ms)
        if self.dirty_pages_rate and sent_bytes > 10_000:
            self.expected_downtime_ms = self._pending_bytes / self.bandwidth_bytes_per_ms

    def synced(self, now_ms: float, new_pages: float, pending_bytes: float) -> Period | None:
        """A sync found ``new_pages``, after which ``pending_bytes`` were pending.

        Returns:
            The period that ended, once it was over a second long.
        """
        self.sync_count += 1
        self._pending_bytes = pending_bytes
        self._new_pages += new_pages
        elapsed = now_ms - self._since_ms
        if elapsed <= 1000:
            return None
        period = Period(self._new_pages, self.sent_bytes - self._sent_before)
        self.dirty_pages_rate = self._new_pages * 1000 / elapsed
        self._new_pages, self._since_ms, self._sent_before = 0.0, now_ms, self.sent_bytes
        return period
