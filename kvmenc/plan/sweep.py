"""All RAM as the sending thread goes over it, round and round, and what is pending where.

QEMU walks the blocks in order and starts over at the end. A page is pending when a sync has seen it
dirty and it was not sent since. So where the cursor passed long ago more pages are dirty than where
it just was, and how many is what the dirty curve says for that age: a page dirtied twice before it
is sent counts once by itself.

The kernel's log is cleared late, of what the last sync saw, when the cursor enters a chunk (QEMU
10.0, migration/ram.c, ``migration_clear_memory_region_dirty_bitmap``). Let a page have been watched
for a time ``a`` up to that sync, ``b`` from the sync to the clearing, and ``c`` since. If it was
written during ``a`` it was pending and was cleared, and only ``c`` counts; if not, ``b`` counts as
well. When writes to a page come by chance, independent of each other, the chance of not being
written multiplies, and so many are dirty: ``D(c) + D(a + b + c) - D(a + c)``.

How long is ``a``? Back to the clearing before, and for pages not pending then through its ``b`` as
well. Whether they were is followed one clearing back in the same way; at that one, most pages are
taken not to have been pending, or all of them the first time.

Devices write past KVM's log; QEMU notes that by itself and takes note of it at each sync
(QEMU 10.0, include/exec/ram_addr.h, ``cpu_physical_memory_sync_dirty_bitmap``). So what devices
wrote since the sync that a page's last sending followed is dirty.

Times here are the guest's own: where vCPUs are throttled, they pass more slowly.

Approximations: within a segment (a chunk, where a capture has no map) private, shared and zero
pages are mixed evenly, and dirtied evenly; a page that was zero and is dirtied is zero no more;
the dirtying does not change in the guest's time.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.plan.roads import ByRoad
from kvmenc.plan.segments import segments_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kvmenc.capture import BlockFacts
    from kvmenc.plan.curve import DirtyCurve
    from kvmenc.plan.segments import Segments

    #: A row for each road, a column for each stretch.
    _Pages = NDArray[np.float64]
    #: The rows below, a column for each stretch.
    _History = NDArray[np.float64]

__all__ = ["Sweep"]

#: Fewer stretches are not worth looking for neighbours to join.
_MANY = 8
#: Less than this is rounding.
_NO_PAGE = 1e-9

#: Rows of a history, a column for each stretch.
#: Of its last sending: ``a``, the time from the clearing before it to the sync it follows,
#: infinite when all pages were pending; the ``b`` and the whole watched time of that clearing;
_QUIET_MS, _LATE_BEFORE_MS, _WATCHED_BEFORE_MS = 0, 1, 2
#: ``b``, from the sync until the log was cleared, and when that was: minus infinity, never sent;
_LATE_MS, _CLEARED_MS = 3, 4
#: of the last clearing of its log: its ``b``, its whole watched time, and when it was.
_LOG_LATE_MS, _LOG_WATCHED_MS, _LOGGED_MS = 5, 6, 7
#: Which chunk and which segment it belongs to.
_CHUNK, _SEGMENT = 8, 9
#: Its share of all RAM, and then of what each part of the dirty curve dirties.
_WIDTH, _SHARES = 10, 11
#: A stretch that was never sent.
_NEVER_SENT = (math.inf, 0.0, math.inf, 0.0, -math.inf, 0.0, math.inf, -math.inf)


class Sweep:
    """The cursor, what is pending ahead of it, and what it left behind since the last sync.

    RAM is cut into chunks, whose log is cleared as a whole, these into segments, and these into
    stretches whose pages have the same history.

    Args:
        blocks: the RAMBlocks, in the order in which they are sent.
        curve: what the guest dirties.
        clear_pages: size of the chunks.

    Attributes:
        passes: how often the cursor has been over all RAM.
        seen: pages pending right after the last sync, by road.
        stretches: the same by stretch: a column for each, a row for each road.
        at: the stretch that the cursor is in; past the last when all is sent.
        left: which share of it is ahead of the cursor.
    """

    def __init__(self, blocks: Sequence[BlockFacts], curve: DirtyCurve, clear_pages: int) -> None:
        segments = segments_of(blocks, clear_pages)
        self._curve = curve
        self._history = _before_all(segments, curve)
        self._nchunks = int(segments.chunk[-1]) + 1
        self._never_sent = self._history.shape[1]
        self._synced_ms = 0.0
        self._restart(np.ascontiguousarray(segments.pages.T))
        self.passes = 0.0

    def _restart(self, pending: _Pages) -> None:
        """Put the cursor before the first stretch."""
        self.stretches = pending
        self.seen = ByRoad(*np.add.reduce(pending, 1).tolist())
        self._pages: list[float] = np.add.reduce(pending).tolist()
        # Added up from the far end, so that nothing pending comes out as exactly 0.
        self._beyond = list(itertools.accumulate(self._pages[:0:-1], initial=0.0))[::-1]
        self._width = self._history[_WIDTH].tolist()
        self._chunk = self._history[_CHUNK].astype(np.intp)
        self._chunks = self._chunk.tolist()
        self._entered: dict[int, float] = {}
        self.at, self.left = 0, 1.0

    def __bool__(self) -> bool:
        """Whether anything is left ahead of the cursor before the next sync."""
        return self.at < len(self._pages)

    @property
    def front_pages(self) -> float:
        """Pages pending in what is left of the stretch under the cursor."""
        return self._pages[self.at] * self.left

    @property
    def pending_pages(self) -> float:
        """Pages that a sync has seen dirty and that were not sent since."""
        at = self.at
        return self._pages[at] * self.left + self._beyond[at] if at < len(self._pages) else 0.0

    @property
    def sent(self) -> ByRoad:
        """Pages sent since the last sync, by road."""
        sent = np.add.reduce(self.stretches[:, : self.at], 1)
        if self:
            sent += self.stretches[:, self.at] * (1 - self.left)
        return ByRoad(*sent.tolist())

    def skip_clean(self, now_ms: float) -> None:
        """Move the cursor to the next stretch with anything pending; there must be one."""
        while not self._pages[self.at]:
            self.pass_front(1.0, now_ms)

    def pass_front(self, share: float, now_ms: float) -> None:
        """Send a share of what is left of the stretch under the cursor, and move over it."""
        at, chunk = self.at, self._chunks[self.at]
        self._entered.setdefault(chunk, now_ms)
        self.passes += self._width[at] * self.left * share
        if share >= 1:
            self.at, self.left = at + 1, 1.0
        else:
            self.left *= 1 - share

    def pass_pages(self, pages: float, sent_ms: Callable[[float], float]) -> None:
        """Send so many pending pages; ``sent_ms`` says when, given how many go before."""
        left = pages
        while self and left > _NO_PAGE:
            front = self.front_pages
            share = min(1.0, left / front) if front else 1.0
            self.pass_front(share, sent_ms(pages - left))
            left -= share * front

    def pass_all(self, now_ms: float) -> None:
        """Send all that is pending at once."""
        while self:
            self.pass_front(1.0, now_ms)

    @property
    def private_ahead(self) -> bool:
        """Whether the stretch under the cursor has private pages."""
        return bool(self.stretches[2, self.at])

    def pending_until(self, stretch: int) -> float:
        """Pages pending ahead of a stretch."""
        return self.pending_pages - (self._beyond[stretch - 1] if stretch else 0.0)

    def sync(self, now_ms: float) -> float:
        """Look what is dirty everywhere; returns how many pages are newly pending."""
        before = self.pending_pages
        old, at = self._history, self.at
        ahead, end = old.shape[1] - at, at + (self.left < 1)
        history = np.concatenate([old[:, at:], old[:, :end]], axis=1)
        history[_WIDTH:, :1] *= self.left
        if self.left < 1:
            history[_WIDTH:, -1] *= 1 - self.left
        entered = np.full(self._nchunks, math.nan)
        entered[list(self._entered)] = list(self._entered.values())
        entered_ms = entered[self._chunk]
        self._clear(history, ahead, np.concatenate([entered_ms[at:], entered_ms[:end]]))
        self._history = _joined(history, ahead)
        pending = self._dirty(now_ms)
        self._synced_ms = now_ms
        self._restart(pending)
        return self.pending_pages - before

    def _clear(self, history: _History, ahead: int, entered_ms: NDArray[np.float64]) -> None:
        """Write down what was sent, and where the log was cleared of what the last sync saw.

        That is so in a whole chunk, also where it is still ahead.
        """
        quiet_ms = self._synced_ms - history[_LOGGED_MS]
        late_ms = entered_ms - self._synced_ms
        log = history[_LOG_LATE_MS : _LOGGED_MS + 1]
        sent = history[:, ahead:]
        sent[_QUIET_MS] = quiet_ms[ahead:]
        sent[_LATE_BEFORE_MS : _WATCHED_BEFORE_MS + 1] = log[:2, ahead:]
        sent[_LATE_MS], sent[_CLEARED_MS] = late_ms[ahead:], entered_ms[ahead:]
        # Most pages were not pending, and their log went on; the first time all were.
        watched_ms = quiet_ms + np.where(np.isfinite(log[1]), log[0], 0.0)
        cleared = np.isfinite(entered_ms)
        for row, ms in zip(log, (late_ms, watched_ms, entered_ms), strict=True):
            np.copyto(row, ms, where=cleared)

    def _dirty(self, now_ms: float) -> _Pages:
        """Pages dirty in each stretch; of what was never sent, those still to send."""
        history = self._history
        dirty = np.zeros((3, history.shape[1]))
        if self._never_sent:
            self._never_sent = int(np.count_nonzero(history[_CLEARED_MS] == -math.inf))
            left = self.stretches[:, self.at : self.at + self._never_sent]
            dirty[:, : self._never_sent] = left
            dirty[:, :1] *= self.left
            history = history[:, self._never_sent :]
        windows = np.empty((7, history.shape[1]))
        fresh, after_clearing, watched, all_watched = windows[:4]
        np.subtract(now_ms, history[_CLEARED_MS], out=fresh)
        np.add(history[_QUIET_MS], fresh, out=after_clearing)
        np.add(history[_WATCHED_BEFORE_MS], after_clearing, out=watched)
        np.add(history[_LATE_BEFORE_MS], watched, out=all_watched)
        np.add(windows[1:4], history[_LATE_MS], out=windows[4:])
        for row, part in enumerate(self._curve.parts, _SHARES):
            if part.by_devices:
                pages = part.curve.at(fresh + history[_LATE_MS])
            else:
                logged = part.curve.at(windows)
                missed = logged[4:] - logged[1:4]
                pages = np.maximum(0.0, logged[0] + missed[0] - missed[1] + missed[2])
            dirty[part.road, self._never_sent :] += history[row] * pages
        return dirty


def _before_all(segments: Segments, curve: DirtyCurve) -> _History:
    """Each segment one stretch that was never sent."""
    count = len(segments.chunk)
    history = np.empty((_SHARES + len(curve.parts), count))
    history[: len(_NEVER_SENT)] = np.array(_NEVER_SENT)[:, None]
    history[_CHUNK], history[_SEGMENT] = segments.chunk, np.arange(count)
    history[_WIDTH] = segments.width
    for row, part in enumerate(curve.parts, _SHARES):
        history[row] = part.shares(segments)
    return history


def _joined(history: _History, ahead: int) -> _History:
    """What is behind the cursor with neighbours that differ in nothing but their size made one."""
    if history.shape[1] - ahead < _MANY:
        return history
    behind = history[:_WIDTH, ahead:]
    changes = (behind[:, 1:] != behind[:, :-1]).any(axis=0)
    if changes.all():
        return history
    starts = np.concatenate([np.arange(ahead + 1), changes.nonzero()[0] + ahead + 1])
    joined: _History = history[:, starts]
    joined[_WIDTH:] = np.add.reduceat(history[_WIDTH:], starts, axis=1)
    return joined
