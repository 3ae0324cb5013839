"""Precopy as QEMU decides it, step by step in simulated time.

QEMU sends in slices: about 50 ms, or until the rate limit of a 100 ms window is used up. Before
each slice it compares what is pending with the threshold: the bandwidth measured in the last window
times the downtime limit. Only below it does it sync; and if after the sync still less than the
threshold is pending, it stops the guest and sends that. So pages stay pending over a sync, and near
the end every slice is followed by one (QEMU 10.0, migration/migration.c,
``migration_iteration_run``, ``migration_rate_limit``; migration/ram.c, ``ram_save_iterate``).

A page is sent in fractions; a slice is as long as the mix at its start makes it. Setting up, device
state and a sync take what :mod:`kvmenc.plan.overheads` says; TCP/IP headers belong to the link's
speed.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from kvmenc.plan.ledger import Counters, Ledger, Round
from kvmenc.plan.overheads import WAKE_MS
from kvmenc.plan.stall import Stall
from kvmenc.plan.throttle import GuestClock, SyncTimer, Throttle

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmenc.plan.overheads import Overheads
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.profile import Profile
    from kvmenc.plan.rhythm import Pace
    from kvmenc.plan.roads import RoadCosts
    from kvmenc.plan.sweep import Sweep

    #: Pages, the ms and the bytes that sending them takes.
    _Amount = tuple[float, float, float]

__all__ = ["Outcome", "Precopy"]

#: In ms or bytes: less is rounding.
_TINY = 1e-6
_MAX_SYNCS = 3_000
#: Costs of a page that differ by no more are the same.
_ALIKE = 1e-9
#: A year: the time limit where none is given.
_FOREVER_MS = 366 * 24 * 3600e3

End = Literal["completed", "time-limit", "no-progress"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a migration went.

    Attributes:
        end: ``completed``; ``time-limit``; or ``no-progress``: round after round as much stays
            pending as before.
        total_ms: from start to end, or to giving up; the rounds and setting up.
        downtime_ms: how long the guest was stopped; None if it never was.
        pending_bytes: pages left to send at the end; for ``completed`` when the guest stopped, for
            ``no-progress`` the least that a sync ever leaves.
        rounds: in order; the stopped one, if any, is the last.
        counters: QEMU's own figures at the end.
        setup_ms: until the first page was sent.
        postcopy_bytes: sent after the guest went on at the destination.
    """

    end: End
    total_ms: float
    downtime_ms: float | None
    pending_bytes: float
    rounds: list[Round]
    counters: Counters
    setup_ms: float
    postcopy_bytes: float


@dataclass(slots=True)
class _Window:
    """The time over which QEMU limits and measures its rate."""

    start_ms: float
    sent_bytes: float = 0.0
    sent_pages: float = 0.0


class Precopy:
    """The migration thread.

    Args:
        sweep: all RAM, with the cursor at its start.
        costs: of a page on each road.
        overheads: what else takes time.
        parameters: what the user decides.
        profile: the rules of a QEMU.
        pace: of the guest.
    """

    def __init__(
        self,
        sweep: Sweep,
        costs: RoadCosts,
        overheads: Overheads,
        parameters: Parameters,
        profile: Profile,
        pace: Pace,
    ) -> None:
        self._sweep, self._costs, self._profile = sweep, costs, profile
        self._overheads, self._parameters = overheads, parameters
        self._deadline_ms = (parameters.time_limit_ms or _FOREVER_MS) - overheads.setup_ms
        limit_ms = parameters.downtime_limit_ms
        self._counters = Counters(downtime_limit_ms=limit_ms, expected_downtime_ms=limit_ms)
        self._ledger = Ledger(sweep.seen)
        self._stall = Stall(least_ms=profile.window_ms)
        self._throttle, self._pace, self._clock = (
            Throttle(parameters.auto_converge),
            pace,
            GuestClock(),
        )
        self._change_pace(0.0)
        self._window = _Window(0.0)
        self._now = self._sent_again = self._quiet_ms = self._first_left = 0.0
        self._timer = SyncTimer(profile.timer_ms if parameters.auto_converge else None)
        self._batch = parameters.private_batch_pages
        self._price()

    @property
    def _pending_bytes(self) -> float:
        return self._sweep.pending_pages * self._costs.page_size

    def run(self) -> Outcome:
        """Migrate all RAM, or until there is no hope."""
        while (end := self._decide()) is None:
            self._send_slice()
            self._end_window()
        return end

    def _change_pace(self, at_ms: float) -> None:
        """The guest's, by its own rhythm or QEMU's throttle."""
        self._clock.change(at_ms, self._pace.at(at_ms + _TINY, self._throttle.pct))
        self._pace_until_ms = self._pace.rhythm.next_change_ms(at_ms + _TINY)

    def _decide(self) -> Outcome | None:
        while self._now >= self._pace_until_ms:
            self._change_pace(self._pace_until_ms)
        timer = self._timer.rings(self._now, self._counters.sync_count)
        if timer or self._little(self._pending_bytes):
            self._now += self._overheads.sync_ms
            self._sync()
        pending = self._pending_bytes
        if not pending or self._little(pending):
            return self._complete()
        if self._parameters.postcopy and self._counters.sync_count > 1:
            return self._go_on_there()
        if self._now >= self._deadline_ms - _TINY:
            return self._outcome("time-limit", None, pending)
        hopeless = not self._throttle.may_rise and self._stall.hopeless(
            self._counters.threshold_bytes
        )
        if hopeless or self._counters.sync_count > _MAX_SYNCS:
            least = min(self._stall.lows[-3:], default=pending)
            return self._outcome("no-progress", None, least)
        return None

    def _little(self, pending_bytes: float) -> bool:
        """Whether so much may be sent while the guest is stopped."""
        threshold = self._counters.threshold_bytes
        return pending_bytes < threshold or (
            self._profile.at_threshold and pending_bytes == threshold
        )

    def _sync(self) -> None:
        sent, first = self._sweep.sent, self._first_left
        self._sent_again += max(0.0, sum(sent) - first) if self._sweep.passes > 1 else 0.0
        self._first_left = self._sweep.pending_pages if self._sweep.passes < 1 else 0.0
        self._counters.known_pages += sent.normal * self._known
        new_pages = self._sweep.sync(self._clock.ms(self._now))
        self._ledger.next_round(self._now, sent, self._sweep.seen)
        period = self._counters.synced(self._now, new_pages, self._pending_bytes)
        if period and self._throttle.period_ended(
            period.new_pages * self._costs.page_size, period.sent_bytes
        ):
            self._change_pace(self._now)
            self._stall = Stall(self._profile.window_ms, passes=self._sweep.passes)
        self._stall.note(self._pending_bytes, self._sweep.passes, self._now)
        self._price()

    def _price(self) -> None:
        """What each stretch costs to send, once for all slices until the next sync."""
        self._known = self._costs.known_share(self._sweep.pending_pages, self._sent_again)
        size = self._ledger.rounds[-1].bytes_per_page = self._costs.bytes_again(self._known)
        prices = self._costs.prices(size) @ self._sweep.stretches
        self._stretch_ms, self._stretch_bytes, _ = prices.tolist()
        one_road = sum(map(bool, self._sweep.seen)) == 1
        self._mix_starts = [] if one_road else _changes(prices)

    def _pages_alike(self) -> float:
        """Pages pending ahead until the mix of roads changes."""
        place = bisect_right(self._mix_starts, self._sweep.at)
        if place == len(self._mix_starts):
            return self._sweep.pending_pages
        return self._sweep.pending_until(self._mix_starts[place])

    def _front(self) -> _Amount:
        """What is left of the stretch under the cursor; there must be some ahead."""
        at, left = self._sweep.at, self._sweep.left
        return self._sweep.front_pages, self._stretch_ms[at] * left, self._stretch_bytes[at] * left

    def _send_slice(self) -> None:
        self._sweep.skip_clean(self._clock.ms(self._now))
        slice_pages, room_ms = self._slice_of(self._front())
        if self._now == self._window.start_ms:
            self._skip_windows(slice_pages, room_ms)
        room_bytes = self._costs.window_bytes - self._window.sent_bytes
        self._counters.other_bytes += self._costs.call_bytes
        while self._sweep and room_ms > _TINY and room_bytes > _TINY:
            front = self._front()
            _, ms, size = front
            share = min(1.0, room_ms / ms, room_bytes / size) if ms else 1.0
            self._send(front, share)
            room_ms -= share * ms
            room_bytes -= share * size

    def _send(self, front: _Amount, share: float) -> None:
        """Send a share of the stretch in front at the speed of link and firmware."""
        pages, ms, size = front
        self._sweep.pass_front(share, self._clock.ms(self._now))
        self._now += ms * share
        self._quiet_ms = 0.0
        self._window.sent_bytes += size * share
        self._counters.sent_bytes += size * share
        self._window.sent_pages += pages * share

    def _end_window(self) -> None:
        """Sleep if the window's bytes are used up; measure if its time is."""
        window, length = self._window, self._profile.window_ms
        if window.sent_bytes >= self._costs.window_bytes - _TINY:
            self._quiet_ms = max(0.0, window.start_ms + length + WAKE_MS - self._now)
            self._now += self._quiet_ms
        elapsed = self._now - window.start_ms
        if elapsed >= length - _TINY:
            self._counters.window_ended(window.sent_bytes, window.sent_pages, elapsed)
            self._window = _Window(self._now)

    def _skip_windows(self, slice_pages: float, slice_ms: float) -> None:
        """Send whole windows at once, as long as all are alike and none brings a decision.

        Ends where slice after slice would, however large the guest.
        """
        front_pages, front_ms, front_bytes = self._front()
        page_ms, page_bytes = front_ms / front_pages, front_bytes / front_pages
        slices = math.ceil(self._profile.window_ms / slice_ms - _TINY)
        pages = min(slices * slice_pages, self._costs.window_bytes / page_bytes)
        ms = max(self._profile.window_ms + WAKE_MS, pages * page_ms)
        threshold = max(
            self._counters.threshold_bytes,
            page_bytes * pages / ms * self._counters.downtime_limit_ms,
        )
        undecided = self._sweep.pending_pages - threshold / self._costs.page_size
        until_ms = min(self._deadline_ms, self._timer.next_ms, self._pace_until_ms) - self._now
        count = int(min(self._pages_alike() / pages, undecided / pages, until_ms / ms)) - 1
        if count > 0:
            self._send_windows(count, pages, ms, page_ms)
            self._counters.window_ended(page_bytes * pages, pages, ms)
            self._counters.sent_bytes += count * page_bytes * pages
            calls = math.ceil(pages / slice_pages - _TINY)
            self._counters.other_bytes += count * calls * self._costs.call_bytes

    def _send_windows(self, count: int, pages: float, ms: float, page_ms: float) -> None:
        """Send so many windows, each of so many pages and ms, waiting included."""
        start_ms = self._now

        def sent_ms(before: float) -> float:
            window = int(before / pages + _TINY)
            own_ms = max(0.0, before - window * pages) * page_ms
            return self._clock.ms(start_ms + window * ms + own_ms)

        self._sweep.pass_pages(count * pages, sent_ms)
        self._now = start_ms + count * ms
        self._quiet_ms = ms - pages * page_ms
        self._window = _Window(self._now)

    def _slice_of(self, front: _Amount) -> tuple[float, float]:
        """Pages and ms of one undisturbed slice of a mix of pages."""
        pages, ms, _ = front
        page_ms = ms / pages
        step = self._profile.clock_pages
        looks = math.ceil((self._profile.slice_ms / page_ms - 1) / step - _TINY)
        count = 1 + step * max(0, looks)
        if self._batch > 1 and self._sweep.private_ahead:
            count = math.ceil(count / self._batch) * self._batch
        return count, count * page_ms

    def _complete(self) -> Outcome:
        """Stop the guest, look once more what is dirty, and send it with no limit but the link."""
        stopped_ms, pending = self._now, self._pending_bytes
        self._sync()
        self._now += self._overheads.sync_ms
        seen = self._sweep.seen
        size = math.fsum(self._stretch_bytes)
        self._sweep.pass_all(self._clock.ms(self._now))
        self._now += self._costs.stopped_ms(size, seen.encrypted, self._quiet_ms)
        self._now += self._overheads.devices_ms
        self._counters.sent_bytes += size
        self._ledger.rounds[-1].stopped = True
        return self._outcome("completed", self._now - stopped_ms, pending)

    def _go_on_there(self) -> Outcome:
        """Postcopy: the guest goes on at the destination, and what is pending follows it."""
        stopped_ms = self._now
        self._sync()
        self._now += self._overheads.sync_ms + self._overheads.devices_ms
        pause_ms, pending = self._now - stopped_ms, self._pending_bytes
        size = math.fsum(self._stretch_bytes)
        self._sweep.pass_all(self._clock.ms(self._now))
        self._now += size / self._parameters.link * 1000
        self._counters.sent_bytes += size
        return self._outcome("completed", pause_ms, pending, size)

    def _outcome(
        self, end: End, downtime_ms: float | None, pending_bytes: float, postcopy_bytes: float = 0.0
    ) -> Outcome:
        sent = self._sweep.sent
        self._ledger.close_round(self._now, sent)
        self._counters.known_pages += sent.normal * self._known
        self._counters.other_bytes += self._sweep.passes * self._costs.round_bytes
        rounds = [one for one in self._ledger.rounds if one.ms]
        self._counters.throttle_pct = self._throttle.pct
        return Outcome(
            end=end,
            total_ms=self._overheads.setup_ms + self._now,
            downtime_ms=downtime_ms,
            pending_bytes=pending_bytes,
            rounds=rounds,
            counters=self._counters,
            setup_ms=self._overheads.setup_ms,
            postcopy_bytes=postcopy_bytes,
        )


def _changes(prices: NDArray[np.float64]) -> list[int]:
    """The stretches whose pages cost more or less than those before them, by ms, bytes, pages."""
    some = prices[2].nonzero()[0]
    each = prices[:2, some] / prices[2, some]
    changed = (np.abs(each[:, 1:] - each[:, :-1]) > _ALIKE * each[:, 1:]).any(axis=0)
    starts: list[int] = some[1:][changed].tolist()
    return starts
