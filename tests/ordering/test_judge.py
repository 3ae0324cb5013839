"""Bytes under keys, and what a guest reads of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.ordering.judge import Bytes, Memory, Outcome, Twin, by_road, worst_reading
from kvmenc.ordering.pages import Act
from tests.ordering import oracle

keys = st.lists(st.tuples(st.sampled_from("sd"), st.sampled_from([-1, 1])), max_size=8)


def twin(*, private: bool, power: int, firmware: bool, kernel_private: bool | None = None) -> Twin:
    data = Bytes(0).under("s", power)
    return Twin(
        Memory(data, private, "s"),
        Memory(by_road(data, firmware=firmware), private, "d"),
        private if kernel_private is None else kernel_private,
        lost=False,
    )


@given(keys)
def test_a_key_and_its_inverse_cancel_and_nothing_else_does(taken: list[tuple[str, int]]) -> None:
    ours, theirs = Bytes(0), ["v"]
    for key, times in taken:
        ours = ours.under(key, times)
        theirs = oracle.apply_key(theirs, key if times > 0 else f"{key}'")
    flat = [key if times > 0 else f"{key}'" for key, times in ours.keys for _ in range(abs(times))]
    assert ["v", *flat] == theirs
    back = ours
    for key, times in reversed(taken):
        back = back.under(key, -times)
    assert back == Bytes(0)


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("firmware", [True, False])
def test_a_page_arrives_by_its_own_road_only(private: bool, firmware: bool) -> None:
    it = twin(private=private, power=int(private), firmware=firmware)
    outcome = worst_reading(it, (), expects_old_bytes=False).outcome
    assert outcome == (Outcome.RIGHT if private == firmware else Outcome.WRONG)


def test_what_garbage_looks_like() -> None:
    raw = worst_reading(twin(private=True, power=1, firmware=False), (), expects_old_bytes=False)
    assert (str(raw.source), str(raw.target)) == ("v", "d'(s(v))")
    through = worst_reading(
        twin(private=False, power=0, firmware=True), (), expects_old_bytes=False
    )
    assert (str(through.source), str(through.target)) == ("v", "d(s'(v))")


def test_a_page_that_is_written_again_before_it_is_read_is_right_after_that() -> None:
    it = twin(private=True, power=1, firmware=False)
    assert it.after(Act.WRITE, 1).outcome(expects_old_bytes=False) == Outcome.RIGHT
    worst = worst_reading(it, (((Act.WRITE,),),), expects_old_bytes=False)
    assert worst.outcome == Outcome.WRONG, "but it may be read before"


def test_ciphertext_read_in_the_clear_is_not_promised_until_it_is_flipped_back() -> None:
    """Sent raw, it reads as on the source; sent by the firmware, it does not, and flips back."""
    flipped = twin(private=True, power=1, firmware=True).after(Act.FLIP, 1)
    assert flipped.lost
    assert flipped.outcome(expects_old_bytes=True) == Outcome.NOT_PROMISED
    assert flipped.after(Act.FLIP, 2).outcome(expects_old_bytes=True) == Outcome.RIGHT
    raw = twin(private=True, power=1, firmware=False).after(Act.FLIP, 1)
    assert raw.outcome(expects_old_bytes=True) == Outcome.RIGHT
    back = raw.after(Act.FLIP, 2)
    assert back.outcome(expects_old_bytes=True) == Outcome.WRONG
    assert back.outcome(expects_old_bytes=False) == Outcome.NOT_PROMISED


def test_conversion_in_place_carries_the_value_and_garbage_alike() -> None:
    whole = twin(private=True, power=1, firmware=True).after(Act.CONVERT, 1).after(Act.FLIP, 2)
    assert not whole.lost
    assert whole.source.reading == whole.target.reading == Bytes(0)
    broken = twin(private=True, power=1, firmware=False).after(Act.CONVERT, 1).after(Act.FLIP, 2)
    assert broken.outcome(expects_old_bytes=False) == Outcome.WRONG
