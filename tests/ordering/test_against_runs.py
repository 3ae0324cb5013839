"""The explorer's counts against runs made one by one, with the sync code at work in each."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.ordering.explore import Explorer
from kvmenc.ordering.guests import ORDERS, Case, Order, Setting, case_of
from kvmenc.ordering.hostcode import host_code
from kvmenc.ordering.judge import Judge
from kvmenc.ordering.pages import Act
from kvmenc.ordering.protocols import ASKED_ONCE, OWN, PROTOCOLS, Protocol
from tests.ordering import oracle

ALL = (*PROTOCOLS, ASKED_ONCE)

steps = st.one_of(
    st.sampled_from([Act.WRITE, Act.CONVERT, Act.FLIP, Act.ANNOUNCE, Act.RESET]).map(
        lambda it: (it,)
    ),
    st.just((Act.FLIP, Act.ANNOUNCE)),
)


def explored(protocol: Protocol, case: Case, live_rounds: int) -> Counter[int]:
    explorer, judge = Explorer(case, host_code(protocol, case.npages), live_rounds), Judge(case)
    *_, last = explorer.endings()
    found: Counter[int] = Counter()
    for outcome, runs in zip(judge.outcomes(last.bucket), last.bucket.runs, strict=True):
        found[int(outcome)] += int(runs)
    return found


@pytest.mark.parametrize("protocol", ALL, ids=lambda it: it.name)
def test_every_protocol_against_a_guest_that_converts_there_and_back(protocol: Protocol) -> None:
    order = Order("", ((Act.CONVERT,), (Act.FLIP, Act.ANNOUNCE), (Act.WRITE,)))
    case = case_of(order, Setting.ALONE)
    assert explored(protocol, case, 2) == oracle.counted(protocol, case, 2)


@pytest.mark.parametrize("order", ORDERS, ids=lambda it: it.name)
def test_every_guest_against_the_protocol_of_2019(order: Order) -> None:
    protocol, case = Protocol(flips_dirty=False), case_of(order, Setting.ALONE)
    assert explored(protocol, case, 1) == oracle.counted(protocol, case, 1)


@given(st.sampled_from(ALL), st.lists(steps, min_size=1, max_size=3), st.booleans())
@settings(max_examples=12, deadline=None)
def test_random_guests(protocol: Protocol, taken: list[tuple[Act, ...]], expects: bool) -> None:
    if taken.count((Act.CONVERT,)) > 2:
        return
    order = Order("", tuple(taken), expects_old_bytes=expects)
    for setting in (Setting.ALONE, Setting.SECOND_WRITER):
        case = case_of(order, setting)
        assert explored(protocol, case, 1) == oracle.counted(protocol, case, 1)


@pytest.mark.parametrize("protocol", [OWN[0], Protocol(True, False)], ids=lambda it: it.name)
def test_two_pages_in_a_word(protocol: Protocol) -> None:
    order = Order("", ((Act.FLIP, Act.ANNOUNCE), (Act.WRITE,)))
    case = case_of(order, Setting.ONE_WORD)
    case = replace(case, starts=case.starts[1:2])  # one page private, one shared
    assert explored(protocol, case, 1) == oracle.counted(protocol, case, 1)
