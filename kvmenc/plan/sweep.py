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

Approximations: pages of a class are dirtied evenly all over RAM (within a block, private, shared
and zero pages are mixed evenly); a page that was zero and is dirtied is zero no more; the dirtying
does not change in time.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.plan.roads import ByRoad

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from kvmenc.capture import BlockFacts
    from kvmenc.plan.curve import DirtyCurve

    #: A row for each stretch, a column for each road.
    _Pages = NDArray[np.float64]
    #: A row for each stretch, the columns below.
    _History = NDArray[np.float64]

__all__ = ["Sweep"]

#: Finer than this share of RAM the time of clearing is not followed.
_FINEST = 1 / 16


_ALL_ROADS = np.ones(3)
#: Less than this is rounding.
_NO_PAGE = 1e-9

#: Columns of a history, a row for each stretch:
#: its share of all RAM;
_WIDTH = 0
#: of its last sending: ``a``, the time from the clearing before it to the sync it follows,
#: infinite when all pages were pending; the ``b`` and the whole watched time of that clearing;
_QUIET_MS, _LATE_BEFORE_MS, _WATCHED_BEFORE_MS = 1, 2, 3
#: ``b``, from the sync until the log was cleared, and when that was: minus infinity, never sent;
_LATE_MS, _CLEARED_MS = 4, 5
#: of the last clearing of its log: its ``b``, its whole watched time, and when it was.
_LOG_LATE_MS, _LOG_WATCHED_MS, _LOGGED_MS = 6, 7, 8
#: which chunk it belongs to.
_CHUNK = 9
#: A stretch that was never sent, but for its width and chunk.
_NEVER_SENT = (math.inf, 0.0, math.inf, 0.0, -math.inf, 0.0, math.inf, -math.inf)


class Sweep:
    """The cursor, what is pending ahead of it, and what it left behind since the last sync.

    RAM is cut into chunks, whose log is cleared as a whole, and these into stretches whose pages
    have the same history.

    Attributes:
        passes: how often the cursor has been over all RAM.
        seen: pages pending right after the last sync, by road.
        stretches: the same by stretch: a row for each, a column for each road.
        at: the stretch that the cursor is in; past the last when all is sent.
        left: which share of it is ahead of the cursor.
    """

    def __init__(self, blocks: Iterable[BlockFacts], curve: DirtyCurve, clear_pages: int) -> None:
        blocks = list(blocks)
        self._npages = sum(block.npages for block in blocks)
        self._curve = curve
        chunk_width = max(clear_pages / self._npages, _FINEST)
        chunks = [chunk for block in blocks for chunk in _chunks(block, self._npages, chunk_width)]
        self._history = np.array(
            [(width, *_NEVER_SENT, number) for number, (width, _) in enumerate(chunks)]
        )
        self._nchunks = self._never_sent = len(chunks)
        self._synced_ms = 0.0
        self._restart(np.array([pages for _, pages in chunks]))
        self.passes = 0.0

    def _restart(self, pending: _Pages) -> None:
        """Put the cursor before the first stretch."""
        self.stretches = pending
        self.seen = ByRoad(*np.add.reduce(pending).tolist())
        self._pages: list[float] = (pending @ _ALL_ROADS).tolist()
        # Added up from the far end, so that nothing pending comes out as exactly 0.
        self._beyond = list(itertools.accumulate(self._pages[:0:-1], initial=0.0))[::-1]
        self._width = self._history[:, _WIDTH].tolist()
        self._chunk = self._history[:, _CHUNK].astype(np.intp)
        self._chunks = self._chunk.tolist()
        self._entered: set[int] = set()
        self._entered_ms = np.full(self._nchunks, math.nan)
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
        sent = np.add.reduce(self.stretches[: self.at])
        if self:
            sent += self.stretches[self.at] * (1 - self.left)
        return ByRoad(*sent.tolist())

    def skip_clean(self, now_ms: float) -> None:
        """Move the cursor to the next stretch with anything pending; there must be one."""
        while not self._pages[self.at]:
            self.pass_front(1.0, now_ms)

    def pass_front(self, share: float, now_ms: float) -> None:
        """Send a share of what is left of the stretch under the cursor, and move over it."""
        at, chunk = self.at, self._chunks[self.at]
        if chunk not in self._entered:
            self._entered.add(chunk)
            self._entered_ms[chunk] = now_ms
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

    def pending_until(self, stretch: int) -> float:
        """Pages pending ahead of a stretch."""
        return self.pending_pages - (self._beyond[stretch - 1] if stretch else 0.0)

    def sync(self, now_ms: float) -> float:
        """Look what is dirty everywhere; returns how many pages are newly pending."""
        before = self.pending_pages
        ahead = len(self._history) - self.at
        end = self.at + (self.left < 1)
        entered_ms = self._entered_ms[self._chunk]
        history = np.concatenate([self._history[self.at :], self._history[:end]])
        history[:1, _WIDTH] *= self.left
        if self.left < 1:
            history[-1, _WIDTH] *= 1 - self.left
        self._clear(history, ahead, np.concatenate([entered_ms[self.at :], entered_ms[:end]]))
        self._history = _joined(history, ahead)
        pending = self._dirty(now_ms)
        self._synced_ms = now_ms
        self._restart(pending)
        return self.pending_pages - before

    def _clear(self, history: _History, ahead: int, entered_ms: NDArray[np.float64]) -> None:
        """Write down what was sent, and where the log was cleared of what the last sync saw.

        That is so in a whole chunk, also where it is still ahead.
        """
        cleared = np.isfinite(entered_ms)
        quiet_ms = self._synced_ms - history[:, _LOGGED_MS]
        late_ms = entered_ms - self._synced_ms
        log = history[:, _LOG_LATE_MS : _LOGGED_MS + 1]
        sent = history[ahead:]
        sent[:, _QUIET_MS] = quiet_ms[ahead:]
        sent[:, _LATE_BEFORE_MS : _WATCHED_BEFORE_MS + 1] = log[ahead:, :2]
        sent[:, _LATE_MS], sent[:, _CLEARED_MS] = late_ms[ahead:], entered_ms[ahead:]
        # Most pages were not pending, and their log went on; the first time all were.
        watched_ms = quiet_ms + np.where(np.isfinite(log[:, 1]), log[:, 0], 0.0)
        log[cleared] = np.array([late_ms, watched_ms, entered_ms]).T[cleared]

    def _dirty(self, now_ms: float) -> _Pages:
        """Pages dirty in each stretch; of what was never sent, those still to send."""
        history = self._history
        dirty = np.zeros((len(history), 3))
        if self._never_sent:
            self._never_sent = int(np.count_nonzero(history[:, _CLEARED_MS] == -math.inf))
            dirty[: self._never_sent] = self.stretches[self.at : self.at + self._never_sent]
            dirty[:1] *= self.left
            history = history[self._never_sent :]
        width, quiet, late_before, watched_before, late, cleared = history.T[:_LOG_LATE_MS]
        windows = np.empty((7, len(history)))
        fresh, after_clearing, watched, all_watched = windows[:4]
        np.subtract(now_ms, cleared, out=fresh)
        np.add(quiet, fresh, out=after_clearing)
        np.add(watched_before, after_clearing, out=watched)
        np.add(late_before, watched, out=all_watched)
        np.add(windows[1:4], late, out=windows[4:])
        for column, pages in zip((2, 0), self._curve.pages(windows), strict=True):
            missed = pages[4:] - pages[1:4]
            dirty[self._never_sent :, column] = width * np.maximum(
                0.0, pages[0] + missed[0] - missed[1] + missed[2]
            )
        return dirty


def _joined(history: _History, ahead: int) -> _History:
    """What is behind the cursor with neighbours that differ in nothing but their width made one."""
    behind = history[ahead:, _WIDTH + 1 :]
    changes = (behind[1:] != behind[:-1]).any(axis=1)
    if changes.all():
        return history
    starts = np.concatenate([np.arange(ahead + 1), changes.nonzero()[0] + ahead + 1])
    joined: _History = history[starts]
    joined[:, _WIDTH] = np.add.reduceat(history[:, _WIDTH], starts)
    return joined


def _chunks(block: BlockFacts, all_pages: int, most: float) -> Iterator[tuple[float, ByRoad]]:
    """Width and pages of each chunk of a block."""
    zero = block.zero_pages or 0
    pages = ByRoad(block.npages - block.private_pages - zero, zero, block.private_pages)
    width = block.npages / all_pages
    count = math.ceil(width / most)
    for _ in range(count):
        yield width / count, pages.scaled(1 / count)
