"""What no host can know, and the rule of the guest that closes it."""

from __future__ import annotations

from kvmenc.ordering.guests import OLD_BYTES_ORDER, ORDERS
from kvmenc.ordering.limits import contradictions


def test_writing_before_announcing_looks_like_writing() -> None:
    found = contradictions(ORDERS)
    shortest = found[0]
    assert shortest.seen == ["written"]
    names = {shortest.by_firmware[0], shortest.raw[0]}
    assert names == {"write, write", "convert in place, flip, announce"}
    late = {order.name for order in ORDERS if not order.announces_first}
    assert all({it.by_firmware[0], it.raw[0]} & late for it in found)


def test_guests_that_announce_first_never_contradict_each_other() -> None:
    assert contradictions(it for it in ORDERS if it.announces_first) == []


def test_no_rule_serves_both_conversion_in_place_and_old_bytes_after_a_flip() -> None:
    found = contradictions((*ORDERS, OLD_BYTES_ORDER))
    both = [it for it in found if OLD_BYTES_ORDER.name in {it.by_firmware[0], it.raw[0]}]
    assert {tuple(it.seen) for it in both} >= {("written", "announced")}
