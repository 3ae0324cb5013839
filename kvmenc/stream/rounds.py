"""Rounds, told from what was sent: a stream does not mark QEMU's syncs.

What is certain: QEMU clears a page's dirty bit when it sends it, so a page that comes again was
found dirty by a sync in between; syncs are made between calls only, never within one; and one is
made with the guest stopped, before the last call. So a new round begins with a call that sends a
page which an earlier call of the same round has sent, and with the last call. That makes as few
rounds as the stream allows. A sync that found no page dirty which had been sent before, and one
whose pages were sent only after the next, leave no trace: QEMU's dirty-sync-count is never less
than the number of rounds, and may be more. Rounds begin as late as they can have begun.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import StreamError
from kvmenc.plan.result import Counts
from kvmenc.stream.batch import ROAD_OF, Kind, Road
from kvmenc.stream.result import RoundBlock, StreamRound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kvmenc.memory.words import Pages
    from kvmenc.stream.batch import Batch, Block

__all__ = ["MOST_ROUNDS", "Marks", "Rounds", "counts_of"]

#: A migration that does not converge makes tens of thousands in an hour.
MOST_ROUNDS = 10_000
#: RAMBlocks of these: a few in each, but for one that is hostile.
_MOST_ROWS = 1 << 18
_MOST_CALLS = 1 << 24
_MOST_SENDS = 255
#: Pages, as a power of two, that are counted or left out at once.
_CHUNK_BITS = 16


class Marks:
    """Of each page, in which call it was sent last, and how often it was sent.

    Args:
        npages: of all RAMBlocks, four bytes for each.

    Attributes:
        twice_in_a_call_pages: so often a page came again in the same call.
    """

    def __init__(self, npages: int) -> None:
        try:
            self._marks = np.zeros(npages, np.uint32)
            self._touched = np.zeros((npages >> _CHUNK_BITS) + 1, np.bool_)
        except MemoryError:
            raise StreamError(
                f"books on {npages} pages of RAM take {4 * npages} bytes, more than there are"
            ) from None
        self.twice_in_a_call_pages = 0

    def note(self, ordinals: Pages, call: int, since: int) -> tuple[bool, int]:
        """Pages are sent in a call.

        Args:
            ordinals: which.
            call: its number, from 1.
            since: the round's first call.

        Returns:
            Whether one was sent in the same round by an earlier call; and how many were sent before
            the round began.
        """
        if call >= _MOST_CALLS:
            raise StreamError(f"the stream has more than {_MOST_CALLS} calls")
        times: int | NDArray[np.int64] = 1
        if not (ordinals[1:] > ordinals[:-1]).all():
            ordinals, times = np.unique(ordinals, return_counts=True)
            self.twice_in_a_call_pages += int((times - 1).sum())
        marks = self._marks[ordinals]
        calls = marks >> 8
        sends = np.minimum((marks & 0xFF) + times, _MOST_SENDS)
        self._touched[ordinals >> _CHUNK_BITS] = True
        self._marks[ordinals] = np.uint32(call << 8) | sends.astype(np.uint32)
        here = int(np.count_nonzero(calls == call))
        self.twice_in_a_call_pages += here
        in_round = int(np.count_nonzero(calls >= since)) - here
        return in_round > 0, int(np.count_nonzero(calls)) - here

    def histogram(self, block: Block) -> NDArray[np.int64]:
        """How many pages of a RAMBlock were sent 0, 1, ... 255 or more times."""
        found = np.zeros(_MOST_SENDS + 1, np.int64)
        first, last = block.first, block.first + block.npages - 1
        touched = self._touched[first >> _CHUNK_BITS : (last >> _CHUNK_BITS) + 1]
        for chunk in (np.flatnonzero(touched) + (first >> _CHUNK_BITS)).tolist():
            start = max(first, chunk << _CHUNK_BITS)
            end = min(last + 1, (chunk + 1) << _CHUNK_BITS)
            found += np.bincount(self._marks[start:end] & 0xFF, minlength=found.size)
        found[0] += block.npages - found.sum()
        return found


class Rounds:
    """Sorts what calls sent into rounds.

    Args:
        blocks: the RAMBlocks.
        marks: of their pages.

    Attributes:
        pages: sent so far in ended calls, by RAMBlock (row) and kind (column).
        bytes: of their records.
        rounds: those that are over.
        total: how many, those that are not kept too.
        call: number of the call, from 1.
        first_calls: of the rounds.
        stopped: the last call has begun, with the guest stopped.
    """

    def __init__(self, blocks: Sequence[Block], marks: Marks) -> None:
        self._blocks, self._marks = blocks, marks
        self._shape = (len(blocks), len(Kind))
        self.pages, self.bytes = (np.zeros(self._shape, np.int64) for _ in range(2))
        self.rounds: list[StreamRound] = []
        self.first_calls: list[int] = []
        self.call = self.total = self._rows = 0
        self.stopped = False
        self._since = 1
        self._round = _Sum(self._shape)
        self._call = _Sum(self._shape)

    def begin_call(self, *, stopped: bool) -> None:
        """QEMU begins to send; with the guest stopped, if so."""
        self.call += 1
        self._call = _Sum(self._shape)
        if stopped:
            self._close()
            self.stopped = True

    def add(self, batch: Batch) -> None:
        """Pages are sent."""
        again, before = self._marks.note(batch.ordinals, self.call, self._since)
        if again:
            self._close()
        self._call.sent_before += before
        key = batch.blocks * len(Kind) + batch.kinds
        count = self.pages.size
        self._call.pages += np.bincount(key, minlength=count).reshape(self._shape)
        sizes = np.bincount(key, batch.sizes, count).astype(np.int64)
        self._call.bytes += sizes.reshape(self._shape)

    def without_session(self, block: int, size_bytes: int) -> None:
        """So many bytes of an encrypted page's record are the session's."""
        self._call.bytes[block, Kind.ENCRYPTED] -= size_bytes

    def end_call(self) -> None:
        """The call is over."""
        self._round.add(self._call)
        self.pages += self._call.pages
        self.bytes += self._call.bytes

    def end(self) -> None:
        """So is the stream."""
        self._keep()

    def _close(self) -> None:
        """A round ends with the call before this one."""
        if self._since < self.call:
            self._keep()
        self._since = self.call

    def _keep(self) -> None:
        self.total += 1
        if len(self.rounds) == self.total - 1 < MOST_ROUNDS and self._rows < _MOST_ROWS:
            told = self._round.told(self._blocks, stopped=self.stopped)
            self._rows += len(told.blocks)
            self.first_calls.append(self._since)
            self.rounds.append(told)
        self._round = _Sum(self._shape)


class _Sum:
    """What some calls sent."""

    def __init__(self, shape: tuple[int, int]) -> None:
        self.calls = self.sent_before = 0
        self.pages, self.bytes = np.zeros(shape, np.int64), np.zeros(shape, np.int64)

    def add(self, call: _Sum) -> None:
        self.calls += 1
        self.sent_before += call.sent_before
        self.pages += call.pages
        self.bytes += call.bytes

    def told(self, blocks: Sequence[Block], *, stopped: bool) -> StreamRound:
        used = np.flatnonzero(self.pages.any(axis=1)).tolist()
        rows = [
            RoundBlock(blocks[i].name, counts_of(self.pages[i]), counts_of(self.bytes[i]))
            for i in used
        ]
        pages, size = counts_of(self.pages.sum(axis=0)), counts_of(self.bytes.sum(axis=0))
        return StreamRound(self.calls, pages, size, self.sent_before, stopped, rows)


def counts_of(by_kind: NDArray[np.int64]) -> Counts:
    """Numbers by kind as numbers by road."""
    roads = np.zeros(len(Road), np.int64)
    np.add.at(roads, ROAD_OF, by_kind)
    return Counts(*(int(it) for it in roads))
