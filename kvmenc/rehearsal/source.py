"""The sending end: reads pages, by the road that the last sync says, and puts them on the line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.guest.scratch import PAGE
from kvmenc.plan.roads import ByRoad
from kvmenc.rehearsal.ram import ENCRYPTED, NORMAL, STRETCH_PAGES, ZERO
from kvmenc.rehearsal.records import PagesRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmenc.firmware import SendSession
    from kvmenc.memory.words import Pages
    from kvmenc.rehearsal.faults import Striker
    from kvmenc.rehearsal.line import Line
    from kvmenc.rehearsal.ram import Roads
    from kvmenc.rehearsal.records import Rows
    from kvmenc.rehearsal.side import Flags, Side

__all__ = ["Sender"]


class Sender:
    """A ``Carrier``.

    Args:
        side: the source.
        session: with its firmware.
        line: to the destination.
        striker: what is to go wrong here.
    """

    def __init__(self, side: Side, session: SendSession, line: Line, striker: Striker) -> None:
        self._side, self._session = side, session
        self._line, self._striker = line, striker
        self._packets = session.rows(STRETCH_PAGES)
        self._rows = [side.rows(block) for block in side.layout.blocks]

    def round_begins(self, *, stopped: bool) -> None:
        """What follows is sent after another sync."""
        self._line.round_begins(stopped=stopped)

    def roads(self, block: int, pages: Pages, private: NDArray[np.bool_]) -> Roads:
        """By which road each page would go now."""
        roads = np.full(pages.size, ENCRYPTED)
        shared = np.flatnonzero(~private)
        zero = self._side.are_zero(self._side.layout.blocks[block], pages[shared])
        roads[shared] = np.where(zero, ZERO, NORMAL)
        return roads

    def carry(self, block: int, pages: Pages, roads: Roads) -> ByRoad:
        """Read pages and send them, one record for all."""
        self._striker.carrying()
        shared = pages[roads != ENCRYPTED]
        zero, contents = self._shared(block, shared)
        encrypted = pages[roads == ENCRYPTED]
        headers, transports = self._encrypted(block, encrypted)
        record = PagesRecord(
            block=block,
            normal=shared[~zero],
            contents=contents,
            zero=shared[zero],
            encrypted=encrypted,
            headers=headers,
            transports=transports,
        )
        self._line.put(record)
        return ByRoad(record.normal.size, record.zero.size, encrypted.size)

    def _shared(self, block: int, pages: Pages) -> tuple[Flags, Rows]:
        """Which pages are zero, and the contents of the others, each read once."""
        zero = ~self._side.touched(self._side.layout.blocks[block], pages)
        contents = self._rows[block][pages[~zero]]
        empty = ~contents.view(np.uint64).any(axis=1)
        zero[~zero] = empty
        return zero, contents[~empty] if empty.any() else contents

    def _encrypted(self, block: int, pages: Pages) -> tuple[Rows, Rows]:
        """Through the firmware, one by one, as its commands are; good until the next call."""
        packets, count = self._packets, pages.size
        if count:
            packets.lie_at(self._side.layout.blocks[block].host_addr + pages * PAGE)
            packets.args["guest_len"][0] -= self._striker.odd_bytes()
            self._session.send_rows(packets, count)
        return packets.headers[:count], packets.contents[:count]
