"""All RAM as the sending thread goes over it, round and round, and what is pending where.

QEMU walks the blocks in order and starts over at the end. A page is pending when a sync has seen it
dirty and it was not sent since. So where the cursor passed long ago more pages are dirty than where
it just was, and how many is what the dirty curve says for that age: a page dirtied twice before it
is sent counts once by itself.

The kernel's log is cleared late, of what the last sync saw, when the cursor enters a chunk (QEMU
10.0, migration/ram.c, ``migration_clear_memory_region_dirty_bitmap``). Let a page have been watched
for a time ``a`` up to that sync, ``b`` from the sync to the clearing, and ``c`` since. If it was
written during ``a`` it was pending and was cleared, and only ``c`` counts; if not, ``b`` counts as
well. When writes to a page come by chance, independent of each other, so many are dirty:
``D(c) + D(a + b + c) - D(a + c)``.

Approximations: pages of a class are dirtied evenly all over RAM (within a block, private, shared
and zero pages are mixed evenly); a page that was zero and is dirtied is zero no more; the dirtying
does not change in time.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.plan.roads import ByRoad

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

    from kvmenc.capture import BlockFacts
    from kvmenc.plan.curve import DirtyCurve

    #: A row for each stretch, a column for each road.
    _Pages = NDArray[np.float64]

__all__ = ["Sweep"]

#: Finer than this share of RAM the time of clearing is not followed.
_FINEST = 1 / 16


class Stretch(NamedTuple):
    """The history of a run of RAM.

    Attributes:
        width: its share of all RAM.
        watched_ms: the ``a`` of its last sending: how long writes had been watched for up to the
            sync before it; infinite when all pages were pending.
        late_ms: likewise ``b``, from that sync until the log was cleared.
        cleared_ms: when that was; minus infinity: never sent.
        logged_ms: since when the log has collected what the next sending will clear.
        chunk: which chunk it belongs to.
    """

    width: float
    watched_ms: float
    late_ms: float
    cleared_ms: float
    logged_ms: float
    chunk: int


class Sweep:
    """The cursor, what is pending ahead of it, and what it left behind since the last sync.

    RAM is cut into chunks, whose log is cleared as a whole, and these into stretches whose pages
    have the same history.

    Attributes:
        passes: how often the cursor has been over all RAM.
        seen: pages pending right after the last sync, by road.
    """

    def __init__(self, blocks: Iterable[BlockFacts], curve: DirtyCurve, clear_pages: int) -> None:
        blocks = list(blocks)
        self._npages = sum(block.npages for block in blocks)
        self._curve = curve
        chunk_width = max(clear_pages / self._npages, _FINEST)
        chunks = [chunk for block in blocks for chunk in self._chunks(block, chunk_width)]
        self._history = [
            Stretch(width, math.inf, 0.0, -math.inf, -math.inf, number)
            for number, (width, _) in enumerate(chunks)
        ]
        self._synced_ms = 0.0
        self._restart(np.array([pages for _, pages in chunks]))
        self.passes = 0.0

    def _chunks(self, block: BlockFacts, most: float) -> Iterator[tuple[float, ByRoad]]:
        """Width and pages of each chunk of a block."""
        zero = block.zero_pages or 0
        pages = ByRoad(block.npages - block.private_pages - zero, zero, block.private_pages)
        width = block.npages / self._npages
        count = math.ceil(width / most)
        for _ in range(count):
            yield width / count, pages.scaled(1 / count)

    def _restart(self, pending: _Pages) -> None:
        """Put the cursor before the first stretch."""
        self.seen = ByRoad(*pending.sum(axis=0).tolist())
        self._pending = pending.tolist()
        # Added up from the far end, so that nothing pending comes out as exactly 0.
        self._beyond = [*np.cumsum(pending.sum(axis=1)[:0:-1])[::-1].tolist(), 0.0]
        self._at, self._left = 0, 1.0
        self._behind: list[Stretch] = []
        self._cleared_ms: dict[int, float] = {}

    def __bool__(self) -> bool:
        """Whether anything is left ahead of the cursor before the next sync."""
        return self._at < len(self._pending)

    @property
    def front(self) -> ByRoad:
        """Pages pending in the stretch under the cursor, by road; there must be some ahead."""
        return ByRoad(*self._pending[self._at]).scaled(self._left)

    @property
    def pending_pages(self) -> float:
        """Pages that a sync has seen dirty and that were not sent since."""
        return sum(self.front) + self._beyond[self._at] if self else 0.0

    def skip_clean(self, now_ms: float) -> None:
        """Move the cursor to the next stretch with anything pending; there must be one."""
        while not any(self._pending[self._at]):
            self.pass_front(1.0, now_ms)

    def pass_front(self, share: float, now_ms: float) -> ByRoad:
        """Move the cursor over a share of what is left of its stretch; returns the pages sent."""
        sent = self.front.scaled(share)
        self._leave_behind(share, now_ms)
        self._left *= 1 - share
        if share >= 1:
            self._at, self._left = self._at + 1, 1.0
        return sent

    def _leave_behind(self, share: float, now_ms: float) -> None:
        before = self._history[self._at]
        cleared_ms = self._cleared_ms.setdefault(before.chunk, now_ms)
        watched_ms = self._synced_ms - before.logged_ms
        passed = Stretch(
            width=before.width * self._left * share,
            watched_ms=watched_ms,
            late_ms=cleared_ms - self._synced_ms,
            cleared_ms=cleared_ms,
            # Most pages were not pending, and their log goes on; the first time all were.
            logged_ms=self._synced_ms if watched_ms < math.inf else cleared_ms,
            chunk=before.chunk,
        )
        self.passes += passed.width
        if self._behind and self._behind[-1][1:] == passed[1:]:
            passed = passed._replace(width=passed.width + self._behind.pop().width)
        self._behind.append(passed)

    def sync(self, now_ms: float) -> float:
        """Look what is dirty everywhere; returns how many pages are newly pending."""
        before = self.pending_pages
        self._history = [*self._unsent(), *self._behind]
        self._synced_ms = now_ms
        self._restart(self._dirty(now_ms))
        return self.pending_pages - before

    def _unsent(self) -> Iterator[Stretch]:
        """What is ahead; where its chunk was entered already, its log was cleared with the rest."""
        left = self._left
        for stretch in self._history[self._at :]:
            logged_ms = self._cleared_ms.get(stretch.chunk, stretch.logged_ms)
            yield stretch._replace(width=stretch.width * left, logged_ms=logged_ms)
            left = 1.0

    def _dirty(self, now_ms: float) -> _Pages:
        """Pages dirty in each stretch; of what was never sent, those still to send."""
        history = np.array([stretch[:4] for stretch in self._history])
        never_sent = int(np.count_nonzero(history[:, 3] == -math.inf))
        width, watched, late, cleared = history[never_sent:].T
        age = now_ms - cleared
        windows = np.array([age, watched + late + age, watched + age])
        dirty = np.zeros((len(history), 3))
        dirty[:never_sent] = np.array(self._pending[self._at :][:never_sent]).reshape(-1, 3)
        dirty[: min(never_sent, 1)] *= self._left
        for column, (fresh, longer, shorter) in zip(
            (2, 0), self._curve.pages(windows), strict=True
        ):
            dirty[never_sent:, column] = width * (fresh + longer - shorter)
        return dirty
