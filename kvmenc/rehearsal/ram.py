"""All RAM under the sending cursor, as it really is: what the planner's ``Sweep`` only computes.

``kvmenc.plan.precopy.Precopy`` decides when to sync, what fits below the threshold, and when to
stop the guest. Here it does so over the guest's own bitmaps, and each page that it has sent is
read, and sent. So a rehearsal follows the very rules that a plan is made by.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Protocol

import numpy as np

from kvmenc.memory.words import clear_ranges
from kvmenc.plan.roads import ByRoad
from kvmenc.plan.sweep import Sweep

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmenc.memory.layout import Layout
    from kvmenc.memory.words import Pages
    from kvmenc.ordering.protocols import HostSync
    from kvmenc.rehearsal.vcpus import Guest

    Roads = NDArray[np.intp]

__all__ = ["ENCRYPTED", "NORMAL", "STRETCH_PAGES", "ZERO", "Carrier", "RealRam"]

NORMAL, ZERO, ENCRYPTED = range(3)
#: Pages of a stretch; a record has no more.
STRETCH_PAGES = 256


class Carrier(Protocol):
    """Who takes pages to the destination."""

    def roads(self, block: int, pages: Pages, private: NDArray[np.bool_]) -> Roads:
        """By which road each page would go now; nothing is sent."""

    def carry(self, block: int, pages: Pages, roads: Roads) -> ByRoad:
        """Read pages and send them; returns how many went which road.

        A page that was zero and is no more goes as it is.
        """

    def round_begins(self, *, stopped: bool) -> None:
        """What follows is sent after another sync."""


class RealRam(Sweep):
    """The cursor over the guest's dirty pages.

    Stretches are runs of pending pages of one RAMBlock, from the cursor on and around.

    Args:
        host: syncs.
        layout: the guest's.
        carrier: sends.
        guest: runs while the migration's time passes.
        start_ms: the guest's time when the migration begins.

    Attributes:
        flipped_pages: seen to flip at each sync.
    """

    def __init__(
        self, host: HostSync, layout: Layout, carrier: Carrier, guest: Guest, start_ms: float
    ) -> None:
        self._host, self._layout, self._carrier = host, layout, carrier
        self._guest, self._start_ms = guest, start_ms
        self._firsts = np.cumsum([0, *(block.npages for block in layout.blocks)])
        self._npages = int(self._firsts[-1])
        self._lap_start = 0
        self._laps = 0.0
        self._stopped = False
        self._begin_round()

    # -- syncs --------------------------------------------------------------------------------

    def stop(self) -> None:
        """The guest is stopped: the next sync is the last."""
        self._guest.stop()
        self._stopped = True

    def sync(self, now_ms: float) -> float:
        """Look what is dirty everywhere; returns how many pages are newly pending."""
        before = self.pending_pages
        self._guest.run_until(self._start_ms + now_ms)
        self._host.after_reading()
        position = self._lap_position
        self._laps += position / self._npages
        self._lap_start = (self._lap_start + position) % self._npages
        self._begin_round()
        return self.pending_pages - before

    def _begin_round(self) -> None:
        """Sync, and line up what is pending."""
        self._host.sync()
        self._host.before_reading()
        self._carrier.round_begins(stopped=self._stopped)
        self._line_up(self._dirty_pages())
        self._sent = ByRoad()

    def _dirty_pages(self) -> Pages:
        """Their numbers among all RAM, from the cursor on and around."""
        dirty = self._host.maps.dirty
        found = [
            first + _set_bits(dirty[block.name].words, block.npages)
            for first, block in zip(self._firsts.tolist(), self._layout.blocks, strict=False)
        ]
        pages = np.concatenate(found)
        split = int(np.searchsorted(pages, self._lap_start))
        return np.concatenate([pages[split:], pages[:split]])

    def _line_up(self, queue: Pages) -> None:
        """Cut the queue into stretches, and put the cursor before the first."""
        self._queue = queue
        self._queue_blocks = np.searchsorted(self._firsts, queue, "right") - 1
        starts = _stretch_starts(self._queue_blocks, queue)
        self._bounds: list[int] = [*starts.tolist(), queue.size]
        self._roads = np.empty(queue.size, np.intp)
        for lo, hi in itertools.pairwise(self._bounds):
            self._roads[lo:hi] = self._roads_of(slice(lo, hi))
        self.stretches = _count_roads(self._roads, starts)
        self.seen = ByRoad(*np.add.reduce(self.stretches, 1).tolist())
        self._pages = np.add.reduce(self.stretches).tolist()
        self._beyond = list(itertools.accumulate(self._pages[:0:-1], initial=0.0))[::-1]
        self.at, self.left = 0, 1.0

    def _roads_of(self, part: slice) -> Roads:
        block, pages = self._in_block(part)
        name = self._layout.blocks[block].name
        return self._carrier.roads(block, pages, self._host.maps.private[name].at(pages))

    def _in_block(self, part: slice) -> tuple[int, Pages]:
        """The RAMBlock that a stretch's pages lie in, and their numbers in it."""
        block = int(self._queue_blocks[part.start])
        return block, self._queue[part] - self._firsts[block]

    # -- sending ------------------------------------------------------------------------------

    @property
    def sent(self) -> ByRoad:
        """Pages sent since the last sync, by the road that they really went."""
        return self._sent

    @property
    def passes(self) -> float:  # type: ignore[override]  # computed: nobody sets it
        """How often the cursor has been over all RAM."""
        return self._laps + self._lap_position / self._npages

    @property
    def _lap_position(self) -> int:
        """Pages of RAM that the cursor has passed since the last sync, clean ones too."""
        if not self:
            return self._npages
        next_page = int(self._queue[self._sent_of(self.at, self.left)])
        return (next_page - self._lap_start) % self._npages

    def pass_front(self, share: float, now_ms: float) -> None:
        """Send a share of what is left of the stretch under the cursor, in whole pages."""
        self._guest.run_until(self._start_ms + now_ms)
        at = self.at
        first = self._sent_of(at, self.left)
        if share >= 1:
            self.at, self.left = at + 1, 1.0
            end = self._bounds[at + 1]
        else:
            self.left *= 1 - share
            end = self._sent_of(at, self.left)
        if end > first:
            self._carry(slice(first, end))

    def _sent_of(self, at: int, left: float) -> int:
        """Where in the queue the cursor stands: a page that was begun counts as sent."""
        lo, hi = self._bounds[at], self._bounds[at + 1]
        return hi - int((hi - lo) * left + 1e-9)

    def _carry(self, part: slice) -> None:
        block, pages = self._in_block(part)
        # Clean from here on: what is written while it is read is dirty again in the kernel's log.
        words = self._host.maps.dirty[self._layout.blocks[block].name].words
        clear_ranges(words, pages, pages + 1)
        self._sent = self._sent.plus(self._carrier.carry(block, pages, self._roads[part]))


def _set_bits(words: NDArray[np.uint64], npages: int) -> Pages:
    return np.flatnonzero(np.unpackbits(words.view(np.uint8), count=npages, bitorder="little"))


def _stretch_starts(blocks: NDArray[np.intp], queue: Pages) -> Pages:
    """Where a RAMBlock begins, the queue goes around, or a stretch is full."""
    if not queue.size:
        return np.empty(0, np.int64)
    breaks = np.flatnonzero((np.diff(blocks) != 0) | (np.diff(queue) < 0)) + 1
    ends = np.concatenate([breaks, [queue.size]])
    runs = zip([0, *breaks.tolist()], ends.tolist(), strict=True)
    return np.concatenate([np.arange(lo, hi, STRETCH_PAGES) for lo, hi in runs])


def _count_roads(roads: Roads, starts: Pages) -> NDArray[np.float64]:
    """How many of each road (rows) each stretch (columns) has."""
    stretch = np.searchsorted(starts, np.arange(roads.size), "right") - 1
    cells = np.bincount(stretch * 3 + roads, minlength=3 * starts.size)
    return np.ascontiguousarray(cells.reshape(-1, 3).T.astype(np.float64))
