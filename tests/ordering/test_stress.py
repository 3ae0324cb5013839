"""The sync protocols beside guests that run: the right ones lose nothing, the others are found out.

With the right ones the guests make 150,000 steps in all, or as many as ``KVMENC_ORDER_STEPS`` in
the environment says: ``make soak-order``. A step is a page written or a page flipped.
"""

from __future__ import annotations

import math
import os
import random
from itertools import product
from typing import TYPE_CHECKING

import pytest

from kvmenc.ordering.guests import Setting
from kvmenc.ordering.protocols import ASKED_ONCE, OWN, PROTOCOLS, Clearing, Protocol
from tests.ordering.stress import Guests, stress

if TYPE_CHECKING:
    from kvmenc.ordering import OrderCheck

STEPS = int(os.environ.get("KVMENC_ORDER_STEPS", "150000"))
SEED = 1 if os.environ.get("CI") == "true" else random.getrandbits(32)
FOUND_WITHIN_S = 20
HARMLESS_STEPS = 10_000  # a bug is found with fewer


def breaks(protocol: Protocol, guests: Guests) -> str:
    """By which of the protocol's bugs such guests lose pages; empty: they lose none."""
    if protocol.clearing == Clearing.AFTER_READING:
        return "a write that came after its page was read is cleared unseen"
    if guests == Guests.WRITE or protocol.flips_dirty:
        return ""
    if protocol.asks_once:
        return "what is written goes by the road of an old state"
    if guests == Guests.IN_PLACE:
        return "a page sent before its announcement is not sent again after it"
    if protocol.private_first or protocol.clearing == Clearing.BEFORE_READING:
        return "flip and write after the state was read, and the write is used up"
    return ""


ALL = (*PROTOCOLS, ASKED_ONCE)
RIGHT = [it for it in ALL if not any(breaks(it, guests) for guests in Guests)]
BROKEN = [it for it in ALL if it not in RIGHT]


def pairs(protocols: list[Protocol], *, lose: bool) -> list[object]:
    return [
        pytest.param(protocol, guests, id=f"{protocol.name} | {guests}")
        for protocol, guests in product(protocols, Guests)
        if bool(breaks(protocol, guests)) == lose
    ]


def test_the_protocols_of_kvmenc_are_among_the_right_ones() -> None:
    assert set(OWN) < set(RIGHT)
    assert len(RIGHT) == 5


ORDERS = {
    Guests.WRITE: "write, write",
    Guests.ANNOUNCE_FIRST: "flip, announce, write",
    Guests.IN_PLACE: "convert in place, flip, announce",
}


@pytest.mark.alone  # the search takes both cores
def test_what_should_break_is_what_the_search_finds_broken(found: OrderCheck) -> None:
    cells = [it for it in found.cells if it.setting != Setting.SECOND_WRITER]
    wrong = {(it.protocol, it.order) for it in cells if it.wrong}
    for protocol, guests in product(ALL, ORDERS):
        assert bool(breaks(protocol, guests)) == ((protocol.name, ORDERS[guests]) in wrong)


@pytest.mark.parametrize("protocol", RIGHT, ids=lambda it: it.name)
def test_no_page_is_wrong(protocol: Protocol) -> None:
    wanted = STEPS // len(RIGHT)
    result = stress(protocol, list(Guests), SEED, page_steps=wanted, seconds=math.inf)
    print(f"\n{result}")
    assert not result.wrong, str(result)
    assert not result.wrong_states, str(result)
    assert result.page_steps >= wanted


@pytest.mark.parametrize(("protocol", "guests"), pairs(BROKEN, lose=True))
def test_a_broken_protocol_is_found_out(protocol: Protocol, guests: Guests) -> None:
    result = stress(protocol, [guests], SEED, page_steps=10**9, seconds=FOUND_WITHIN_S)
    print(f"\n{result.seconds:.2f} s: {protocol.name}; guests that {guests}")
    assert result.wrong, f"not found, though {breaks(protocol, guests)}: {result}"
    assert result.seconds < FOUND_WITHIN_S


@pytest.mark.parametrize(("protocol", "guests"), pairs(BROKEN, lose=False))
def test_and_by_nothing_but_its_own_bug(protocol: Protocol, guests: Guests) -> None:
    result = stress(protocol, [guests], SEED, page_steps=HARMLESS_STEPS, seconds=math.inf)
    assert not result.wrong, str(result)
