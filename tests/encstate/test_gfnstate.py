"""State by gfn against a set of private gfns."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.encstate.gfnstate import GfnState
from kvmenc.encstate.simulated import ConstantSource, Flip, PatternSource, ScriptedSource
from kvmenc.memory.slots import MemSlot
from kvmenc.memory.words import words_for
from tests.encstate.bits import bits_of

SPACE = 400  # gfns in which slots and flips of these tests lie


extents = st.tuples(st.integers(0, SPACE), st.integers(1, 150))
flips = st.lists(st.tuples(st.integers(0, SPACE + 200), st.integers(1, 300), st.booleans()))


@settings(max_examples=150, deadline=None)
@given(st.lists(extents, max_size=5), flips, st.lists(extents, max_size=4))
def test_any_slot_reads_what_was_set_where_it_is_known_and_private_elsewhere(
    known: list[tuple[int, int]], script: list[tuple[int, int, bool]], read: list[tuple[int, int]]
) -> None:
    """The slots overlap here, as those of two address spaces do."""
    state = GfnState(MemSlot(i, gfn, npages, 0) for i, (gfn, npages) in enumerate(known))
    gfns = {g for gfn, npages in known for g in range(gfn, gfn + npages)}
    shared: set[int] = set()
    for gfn, npages, private in script:
        changed = gfns & set(range(gfn, gfn + npages))
        assert state.set_range(gfn, npages, private=private) == len(changed)
        shared = shared - changed if private else shared | changed
    for gfn, npages in read + known:
        got = bits_of(state.words_of(MemSlot(9, gfn, npages, 0)), npages)
        assert got == [g not in shared for g in range(gfn, gfn + npages)]


@pytest.mark.parametrize("gfn", [0, 1 << 51, 1 << 52, (1 << 64) - 5])
def test_a_range_larger_than_any_guest_is_no_trouble(gfn: int) -> None:
    state = GfnState([MemSlot(0, 10, 5, 0)])
    assert state.set_range(gfn, (1 << 64) - 1 - gfn, private=False) == (5 if gfn == 0 else 0)


def test_without_slots_nothing_is_known() -> None:
    assert GfnState([]).set_range(0, 100, private=False) == 0


@pytest.mark.parametrize("private", [True, False])
def test_a_constant_source_says_one_thing_of_every_page(private: bool) -> None:
    slots = [MemSlot(0, 0, 70, 0), MemSlot(1, 100, 64, 0)]
    for slot, words in ConstantSource(private=private).read(slots):
        assert bits_of(words, slot.npages) == [private] * slot.npages


def test_a_scripted_source_plays_one_entry_a_reading_and_keeps_the_last_state() -> None:
    slots = [MemSlot(0, 100, 4, 0)]
    source = ScriptedSource(
        slots, [[], [Flip(101, 2, private=False)], [Flip(102, 9, private=True)]]
    )
    seen = [bits_of(words, 4) for _ in range(4) for _, words in source.read(slots)]
    assert seen == [[1, 1, 1, 1], [1, 0, 0, 1], [1, 0, 1, 1], [1, 0, 1, 1]]


def test_a_pattern_is_the_same_at_every_reading_and_for_every_seed_another() -> None:
    slots = [MemSlot(0, 0, 5000, 0), MemSlot(1, 9000, 5000, 0)]

    def read(seed: int) -> list[bytes]:
        source = PatternSource(shared_share=0.3, run_pages=8, seed=seed)
        first = [words.tobytes() for _, words in source.read(slots)]
        assert first == [words.tobytes() for _, words in source.read(slots)]
        return first

    assert read(1) != read(2)
    assert len(set(read(1))) == 2


def test_a_pattern_has_the_share_and_the_runs_that_were_asked_for() -> None:
    slot = MemSlot(0, 0, 100_003, 0)
    source = PatternSource(shared_share=0.3, run_pages=10, seed=1)
    ((_, words),) = source.read([slot])
    private = np.array(bits_of(words, slot.npages), bool)
    assert np.mean(~private) == pytest.approx(0.3, abs=0.02)
    runs = private[:100_000].reshape(-1, 10)
    assert np.all(runs == runs[:, :1])


@pytest.mark.parametrize(("share", "run_pages"), [(-0.1, 1), (1.1, 1), (float("nan"), 1), (0.5, 0)])
def test_a_pattern_that_makes_no_sense_is_refused(share: float, run_pages: int) -> None:
    with pytest.raises(ValueError, match="no such pattern"):
        PatternSource(shared_share=share, run_pages=run_pages, seed=1)


def test_a_pattern_of_a_tiny_slot_has_one_word() -> None:
    ((_, words),) = PatternSource(shared_share=1, run_pages=64, seed=1).read([MemSlot(0, 0, 1, 0)])
    assert words.tolist() == [0]
    assert len(words) == words_for(1)
