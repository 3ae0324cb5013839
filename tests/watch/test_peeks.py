from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.watch.peeks import Peeks
from tests.watch.scripted import RAM, ROM, SLOTS, TINY, Clock, ScriptedLog, look, peeks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.dirtysource import PeekSource
    from kvmenc.memory.slots import MemSlot
    from kvmenc.memory.words import Words

PAGES = st.sets(st.integers(0, RAM.npages - 1), max_size=20)


@given(looks=st.lists(PAGES, min_size=2, max_size=6))
def test_a_bit_that_was_set_and_is_clear_was_cleared_by_somebody(looks: list[set[int]]) -> None:
    peeks, _ = peeks_of([look(pages) for pages in looks])
    seen: set[int] = set()
    for pages in looks:
        cleared = peeks.cleared_since_last(peeks.take())
        assert cleared == ((RAM,) if seen - pages else ())
        seen = pages


def test_bits_past_a_slots_last_page_are_not_looked_at() -> None:
    class Tail(ScriptedLog):
        """Like a kernel that leaves ones past the end, and then does not."""

        tail = True

        def look(self, slots: Sequence[MemSlot]) -> dict[MemSlot, Words]:
            found = super().look(slots)
            for words in found.values():
                words[-1] |= np.uint64(self.tail << 63)
            self.tail = False
            return found

    clock = Clock()
    peeks = Peeks(cast("PeekSource", Tail(clock, [look({1})])), SLOTS, clock)
    assert not peeks.cleared_since_last(peeks.take())
    assert not peeks.cleared_since_last(peeks.take())


def test_a_look_knows_when_it_was_made() -> None:
    peeks, clock = peeks_of([look({1})])
    before_s = clock.now_s
    peek = peeks.take()
    assert (peek.before_s, peek.after_s) == (before_s, clock.now_s)
    assert peek.after_s > peek.before_s


@given(first=PAGES, then=PAGES)
def test_what_was_dirty_before_is_left_out(first: set[int], then: set[int]) -> None:
    peeks, _ = peeks_of([look(first), look(then)])
    start = peeks.take().kept()
    since = peeks.take().since(start)
    words = dict(since.read(SLOTS))
    bits = np.unpackbits(words[RAM].view(np.uint8), bitorder="little")[: RAM.npages]
    assert set(np.flatnonzero(bits).tolist()) == then - first
    assert not words[ROM].any()
    assert not words[TINY].any()
