"""The table that was once found by hand: one page, two live rounds, three calls a round.

28 interleavings of two guest moves with the six host moves of the live rounds; both orders of the
syncs, and flipped pages made dirty. A flip is announced in the same instant there, and all moves
are made before the guest is stopped.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kvmenc.ordering.explore import Explorer, progress_of
from kvmenc.ordering.guests import Order, Setting, case_of
from kvmenc.ordering.hostcode import host_code
from kvmenc.ordering.judge import Judge, Outcome
from kvmenc.ordering.pages import Act
from kvmenc.ordering.protocols import Protocol

FLIP, WRITE, CONVERT = (Act.FLIP, Act.ANNOUNCE), (Act.WRITE,), (Act.CONVERT,)
PRIVATE_FIRST = Protocol(private_first=True, flips_dirty=False)
DIRTY_FIRST = Protocol(flips_dirty=False)
FLIPS_DIRTY = (Protocol(), Protocol(private_first=True))


def outcomes(order: Order, protocol: Protocol, moves_made: int) -> tuple[int, int, int]:
    """Runs that end wrong, that end not right, and all of them."""
    case = replace(case_of(order, Setting.ALONE), starts=((True,),))
    explorer = Explorer(case, host_code(protocol, 1), 2)
    *_, last = explorer.endings()
    made = progress_of(last.bucket.states, case, 0) == moves_made
    runs, found = last.bucket.runs[made], Judge(case).outcomes(last.bucket)[made]
    bad = np.isin(found, [Outcome.WRONG, Outcome.NO_HOST])
    return int(runs[found == Outcome.WRONG].sum()), int(runs[bad].sum()), int(runs.sum())


@pytest.mark.parametrize(
    ("order", "private_first", "dirty_first", "all_of"),
    [
        (Order("flip, write", (FLIP, WRITE)), 2, 0, 28),
        (Order("write, flip: converted in place", (CONVERT, FLIP)), 21, 11, 28),
        (Order("flip only", (FLIP,)), 0, 0, 7),
    ],
    ids=lambda it: it.name if isinstance(it, Order) else "",
)
def test_what_was_found_by_hand(
    order: Order, private_first: int, dirty_first: int, all_of: int
) -> None:
    moves = len(order.steps)
    assert outcomes(order, PRIVATE_FIRST, moves) == (private_first, private_first, all_of)
    assert outcomes(order, DIRTY_FIRST, moves) == (dirty_first, dirty_first, all_of)
    for protocol in FLIPS_DIRTY:
        assert outcomes(order, protocol, moves) == (0, 0, all_of)


def test_flipped_before_the_stop_and_back_after_it_expecting_the_old_bytes() -> None:
    """Here the flip rule loses where dirty first alone would be lucky."""
    order = Order("flip and back", (FLIP, FLIP), expects_old_bytes=True)
    assert outcomes(order, DIRTY_FIRST, 1)[1:] == (2, 7)
    for protocol in FLIPS_DIRTY:
        assert outcomes(order, protocol, 1)[1:] == (7, 7)
    nothing_expected = replace(order, expects_old_bytes=False)
    for protocol in (DIRTY_FIRST, PRIVATE_FIRST, *FLIPS_DIRTY):
        assert outcomes(nothing_expected, protocol, 1)[1:] == (0, 7)
