"""Precopy as QEMU decides it, step by step in simulated time.

QEMU sends in slices: about 50 ms, or until the rate limit of a 100 ms window is used up. Before
each slice it compares what is pending with the threshold: the bandwidth measured in the last window
times the downtime limit. Only below it does it sync; and if after the sync still less than the
threshold is pending, it stops the guest and sends that. So pages stay pending over a sync, and near
the end every slice is followed by one (QEMU 10.0, migration/migration.c,
``migration_iteration_run``, ``migration_rate_limit``; migration/ram.c, ``ram_save_iterate``).

Approximations, beside those of :mod:`kvmenc.plan.sweep`: pages are sent in fractions; a slice is as
long as the mix at its start makes it; setting up, device state, TCP/IP headers, looking for dirty
and for zero pages take no time, and a sync always the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kvmenc.plan.ledger import Counters, Ledger, Round

if TYPE_CHECKING:
    from kvmenc.plan.profile import Parameters, Profile
    from kvmenc.plan.roads import ByRoad, RoadCosts
    from kvmenc.plan.sweep import Sweep

__all__ = ["Outcome", "simulate"]

#: In ms or bytes: less is rounding.
_TINY = 1e-6
_MAX_SYNCS = 10_000
#: A year: the time limit where none is given.
_FOREVER_MS = 366 * 24 * 3600e3

End = Literal["completed", "time-limit", "no-progress"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a migration went.

    Attributes:
        end: ``completed``; ``time-limit``; or ``no-progress``: round after round as much stays
            pending as before.
        total_ms: from start to end, or to giving up.
        downtime_ms: how long the guest was stopped; None if it never was.
        pending_bytes: pages left to send at the end; for ``completed`` when the guest stopped, for
            ``no-progress`` the least that a sync ever leaves.
        rounds: in order; the stopped one, if any, is the last.
        counters: QEMU's own figures at the end.
    """

    end: End
    total_ms: float
    downtime_ms: float | None
    pending_bytes: float
    rounds: list[Round]
    counters: Counters


def simulate(sweep: Sweep, costs: RoadCosts, parameters: Parameters, profile: Profile) -> Outcome:
    """Migrate the RAM that ``sweep`` stands at the start of."""
    return _Precopy(sweep, costs, parameters, profile).run()


@dataclass(slots=True)
class _Window:
    """The time over which QEMU limits and measures its rate."""

    start_ms: float
    sent_bytes: float = 0.0
    sent_pages: float = 0.0


@dataclass(slots=True)
class _Stall:
    """Whether the least that stays pending still falls towards the threshold.

    ``lows`` holds the least pending after any sync, once for each time the cursor has been over all
    RAM. While the guest does not change its ways, the gain of the last three such times over the
    three before will not grow: if a hundred times as much would not do, nothing will.
    """

    least_ms: float
    lows: list[float] = field(default_factory=list)
    passes: float = 1.0
    since_ms: float = 0.0
    low: float = math.inf

    def note(self, pending_bytes: float, passes: float, now_ms: float) -> None:
        self.low = min(self.low, pending_bytes)
        if passes >= self.passes + 1 and now_ms >= self.since_ms + self.least_ms:
            self.lows.append(self.low)
            self.passes, self.since_ms, self.low = passes, now_ms, math.inf

    def hopeless(self, threshold_bytes: float) -> bool:
        if len(self.lows) < 6:
            return False
        before, now = min(self.lows[-6:-3]), min(self.lows[-3:])
        return (before - now) * 100 < now - threshold_bytes


class _Precopy:
    """The migration thread."""

    def __init__(
        self, sweep: Sweep, costs: RoadCosts, parameters: Parameters, profile: Profile
    ) -> None:
        self._sweep, self._costs, self._profile = sweep, costs, profile
        self._deadline_ms = parameters.time_limit_ms or _FOREVER_MS
        self._window_bytes = parameters.max_bandwidth_bytes_per_s * profile.window_ms / 1000
        limit_ms = parameters.downtime_limit_ms
        self._counters = Counters(downtime_limit_ms=limit_ms, expected_downtime_ms=limit_ms)
        self._ledger = Ledger(sweep.seen)
        self._stall = _Stall(least_ms=profile.window_ms)
        self._window = _Window(0.0)
        self._now = 0.0

    @property
    def _pending_bytes(self) -> float:
        return self._sweep.pending_pages * self._costs.page_size

    def run(self) -> Outcome:
        while (end := self._decide()) is None:
            self._send_slice()
            self._end_window()
        return end

    def _decide(self) -> Outcome | None:
        if self._pending_bytes < self._counters.threshold_bytes:
            self._now += self._profile.sync_ms
            self._sync()
        pending = self._pending_bytes
        if not pending or pending < self._counters.threshold_bytes:
            return self._complete()
        if self._now >= self._deadline_ms - _TINY:
            return self._outcome("time-limit", None, pending)
        hopeless = self._stall.hopeless(self._counters.threshold_bytes)
        if hopeless or self._counters.sync_count > _MAX_SYNCS:
            least = min(self._stall.lows[-3:], default=pending)
            return self._outcome("no-progress", None, least)
        return None

    def _sync(self) -> None:
        new_pages = self._sweep.sync(self._now)
        self._ledger.next_round(self._now, self._sweep.seen)
        self._counters.synced(self._now, new_pages, self._pending_bytes)
        self._stall.note(self._pending_bytes, self._sweep.passes, self._now)

    def _send_slice(self) -> None:
        self._sweep.skip_clean(self._now)
        if self._now == self._window.start_ms:
            self._skip_windows()
        _, room_ms = self._slice_of(self._sweep.front)
        room_bytes = self._window_bytes - self._window.sent_bytes
        while self._sweep and room_ms > _TINY and room_bytes > _TINY:
            pages = self._sweep.front
            ms, size = self._costs.ms(pages), self._costs.wire_bytes(pages)
            share = min(1.0, room_ms / ms, room_bytes / size) if ms else 1.0
            self._send(share)
            room_ms -= share * ms
            room_bytes -= share * size

    def _send(self, share: float) -> None:
        """Send a share of the stretch in front at the speed of link and firmware."""
        pages = self._sweep.pass_front(share, self._now)
        self._ledger.enter(pages)
        self._now += self._costs.ms(pages)
        self._window.sent_bytes += self._costs.wire_bytes(pages)
        self._window.sent_pages += sum(pages)

    def _end_window(self) -> None:
        """Sleep if the window's bytes are used up; measure if its time is."""
        window, length = self._window, self._profile.window_ms
        if window.sent_bytes >= self._window_bytes - _TINY:
            self._now = max(self._now, window.start_ms + length)
        elapsed = self._now - window.start_ms
        if elapsed >= length - _TINY:
            self._counters.window_ended(window.sent_bytes, window.sent_pages, elapsed)
            self._window = _Window(self._now)

    def _skip_windows(self) -> None:
        """Send whole windows at once, as long as all are alike and none brings a decision.

        Ends where slice after slice would, however large the guest.
        """
        front = self._sweep.front
        pages, ms = self._window_of(front)
        sent_bytes = self._costs.wire_bytes(front) * pages / sum(front)
        bandwidth_threshold = sent_bytes / ms * self._counters.downtime_limit_ms
        threshold = max(self._counters.threshold_bytes, bandwidth_threshold)
        undecided = self._sweep.pending_pages - threshold / self._costs.page_size
        left = min(sum(front) / pages, undecided / pages, (self._deadline_ms - self._now) / ms)
        count = int(left) - 1
        if count > 0:
            start_ms = self._now
            self._send(count * pages / sum(front))
            self._now = start_ms + count * ms
            self._counters.window_ended(sent_bytes, pages, ms)
            self._window = _Window(self._now)

    def _slice_of(self, mix: ByRoad) -> tuple[float, float]:
        """Pages and ms of one undisturbed slice of a mix of pages."""
        page_ms = self._costs.ms(mix) / sum(mix)
        step = self._profile.clock_pages
        looks = math.ceil((self._profile.slice_ms / page_ms - 1) / step - _TINY)
        count = 1 + step * max(0, looks)
        return count, count * page_ms

    def _window_of(self, mix: ByRoad) -> tuple[float, float]:
        """Pages and ms of one undisturbed window of a mix of pages."""
        slice_pages, slice_ms = self._slice_of(mix)
        slices = math.ceil(self._profile.window_ms / slice_ms - _TINY)
        page_bytes = self._costs.wire_bytes(mix) / sum(mix)
        pages = min(slices * slice_pages, self._window_bytes / page_bytes)
        return pages, max(self._profile.window_ms, pages * slice_ms / slice_pages)

    def _complete(self) -> Outcome:
        """Stop the guest, look once more what is dirty, and send it with no limit but the link."""
        stopped_ms, pending = self._now, self._pending_bytes
        self._sync()
        self._now += self._profile.sync_ms
        while self._sweep:
            self._send(1.0)
        self._ledger.rounds[-1].stopped = True
        return self._outcome("completed", self._now - stopped_ms, pending)

    def _outcome(self, end: End, downtime_ms: float | None, pending_bytes: float) -> Outcome:
        self._ledger.close_round(self._now)
        rounds = [one for one in self._ledger.rounds if one.ms]
        return Outcome(end, self._now, downtime_ms, pending_bytes, rounds, self._counters)
