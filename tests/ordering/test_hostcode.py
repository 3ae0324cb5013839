"""The table is what the sync code does; and where the code is broken, the search finds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.dirtysource import DirtyLogSource
from kvmenc.memory import words as kernels
from kvmenc.memory.sync import DirtySource, GuestMaps, PrivateSource
from kvmenc.ordering.explore import Explorer
from kvmenc.ordering.guests import ORDERS, Setting, case_of
from kvmenc.ordering.hostcode import Call, host_code, table_index
from kvmenc.ordering.judge import Judge, Outcome
from kvmenc.ordering.protocols import ASKED_ONCE, OWN, PROTOCOLS, Clearing, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.memory.words import Words

bits = st.integers(0, 3)


@pytest.fixture
def uncached() -> Iterator[None]:
    """Tables of code that a test has changed must not outlive it."""
    host_code.cache_clear()
    yield
    host_code.cache_clear()


def wrong_runs(protocol: Protocol, setting: Setting = Setting.ALONE) -> int:
    total = 0
    for order in ORDERS:
        case = case_of(order, setting)
        judge = Judge(case)
        for ending in Explorer(case, host_code(protocol, case.npages), 2).endings():
            outcomes = judge.outcomes(ending.bucket)
            total += int(ending.bucket.runs[outcomes == Outcome.WRONG].sum())
    return total


def test_the_own_protocols_ask_in_the_order_of_the_sync() -> None:
    by_get, when_merged = (host_code(protocol, 1).later for protocol in OWN)
    assert by_get.calls == (Call.GET_AND_CLEAR, Call.GET_PRIVATE)
    assert when_merged.calls == (Call.GET_DIRTY, Call.CLEAR, Call.GET_PRIVATE)
    assert by_get.after == when_merged.after == ()


def test_each_protocol_asks_as_its_name_says() -> None:
    for protocol in PROTOCOLS:
        code = host_code(protocol, 1).later
        calls = [*code.calls, "read", *code.after]
        gets = [it for it in calls if it not in {"read", Call.CLEAR}]
        assert (gets[0] == Call.GET_PRIVATE) == protocol.private_first
        assert (Call.GET_AND_CLEAR in gets) == (protocol.clearing == Clearing.BY_GET)
        assert (calls[-1] == Call.CLEAR) == (protocol.clearing == Clearing.AFTER_READING)
    once = host_code(ASKED_ONCE, 1)
    assert Call.GET_PRIVATE in once.first.calls
    assert once.later.calls == (Call.GET_AND_CLEAR,)


@given(st.sampled_from(PROTOCOLS), bits, bits, bits, bits)
def test_the_table_is_the_rule_in_one_line(
    protocol: Protocol, dirty: int, private: int, got_dirty: int, got_private: int
) -> None:
    flips = (private ^ got_private) * protocol.flips_dirty
    held = host_code(protocol, 2).later.table[
        table_index(2, dirty, private, got_dirty, got_private)
    ]
    assert held == (dirty | got_dirty | flips) | got_private << 2


@pytest.mark.usefixtures("uncached")
def test_a_sync_that_reads_private_first_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def swapped(self: GuestMaps, dirty: DirtySource, private: PrivateSource) -> None:
        self.copy_private(private)
        self.merge_dirty(dirty)

    assert wrong_runs(OWN[0]) == 0
    monkeypatch.setattr(GuestMaps, "sync", swapped)
    host_code.cache_clear()
    assert host_code(OWN[0], 1).later.calls == (Call.GET_PRIVATE, Call.GET_AND_CLEAR)
    assert wrong_runs(OWN[0]) == 0, "flipped pages are still made dirty"


@pytest.mark.usefixtures("uncached")
def test_a_copy_that_forgets_flips_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = kernels.copy_bits_noting_changes

    def forgetful(
        state: Words, dirty: Words, dst_bit: int, src: Words, src_bit: int, nbits: int
    ) -> int:
        return real(state, np.zeros_like(dirty), dst_bit, src, src_bit, nbits)

    monkeypatch.setattr(kernels, "copy_bits_noting_changes", forgetful)
    assert wrong_runs(OWN[0]) > 0


@pytest.mark.usefixtures("uncached")
def test_a_copy_that_takes_a_whole_word_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The neighbours' states: no table could show that."""

    def whole_word(
        state: Words, dirty: Words, dst_bit: int, src: Words, src_bit: int, nbits: int
    ) -> int:
        state[dst_bit // 64] = src[src_bit // 64]
        return 0

    monkeypatch.setattr(kernels, "copy_bits_noting_changes", whole_word)
    with pytest.raises(RuntimeError, match="changed a neighbour's bit"):
        host_code(OWN[0], 2)


@pytest.mark.usefixtures("uncached")
def test_pages_treated_differently_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mirror images may be merged only where the code does not care which page is which."""
    real = kernels.or_bits

    def first_page_only(dst: Words, dst_bit: int, src: Words, src_bit: int, nbits: int) -> None:
        real(dst, dst_bit, src, src_bit, 1)

    monkeypatch.setattr(kernels, "or_bits", first_page_only)
    with pytest.raises(RuntimeError, match="treats two pages differently"):
        Explorer(case_of(ORDERS[0], Setting.ONE_WORD), host_code(OWN[0], 2), 1)


@pytest.mark.usefixtures("uncached")
def test_calls_that_depend_on_answers_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DirtyLogSource.read

    def hasty(self: DirtyLogSource, slots: list[object]) -> Iterator[object]:
        for slot, words in real(self, slots):  # type: ignore[arg-type]
            if words[0] & 1:
                self._vm.dirty_log(slot)
            yield slot, words

    monkeypatch.setattr(DirtyLogSource, "read", hasty)
    with pytest.raises(RuntimeError, match="its calls depend on what they return"):
        host_code(OWN[0], 1)


@pytest.mark.usefixtures("uncached")
def test_clearing_more_than_was_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(self: DirtyLogSource, slots: list[object]) -> Iterator[object]:
        for slot in slots:
            words = self._vm.dirty_log(slot)  # type: ignore[arg-type]
            yield slot, words
            words[:] = 3
            self._vm.clear_dirty_log(slot, words)  # type: ignore[arg-type]

    monkeypatch.setattr(DirtyLogSource, "read", greedy)
    with pytest.raises(RuntimeError, match="it read the dirty bits 0x0 and cleared 0x3"):
        host_code(OWN[1], 2)
