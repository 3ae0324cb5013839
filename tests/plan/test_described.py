from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture.facts import decode, encode
from kvmenc.errors import InputError
from kvmenc.plan import Parameters, make_plan
from kvmenc.plan.described import Described
from kvmenc.plan.whatif import WhatIf

GIB = 2.0**30


@given(
    memory=st.floats(4096, 2**40),
    zero=st.floats(0, 1),
    private=st.floats(0, 1),
    rate=st.floats(0, 1e10),
    part=st.floats(1e-6, 1),
)
def test_any_description_is_a_sound_capture(
    memory: float, zero: float, private: float, rate: float, part: float
) -> None:
    described = Described(
        memory_bytes=memory,
        zero_share=zero,
        private_share=private,
        dirty_bytes_per_s=rate,
        working_set_bytes=memory * part,
    )
    capture = described.capture()
    assert decode(encode(capture)) == capture
    last = capture.curve[-1]
    assert last.private_pages + last.shared_pages <= memory * part / 4096 + 2


def test_the_curve_is_that_of_writes_by_chance() -> None:
    """Counted page by page: the chance that none of the writes hits a page."""
    described = Described(memory_bytes=GIB, dirty_bytes_per_s=100 * 4096, working_set_bytes=4096e3)
    for point in described.capture().curve:
        missed = (1 - 1 / 1000) ** (100 * point.ms / 1000)
        assert point.shared_pages == pytest.approx(1000 * (1 - missed), abs=1)


def test_a_described_guest_is_planned_like_any_other() -> None:
    capture = Described(memory_bytes=8 * GIB, zero_share=0.5, dirty_bytes_per_s=50e6).capture()
    plan = make_plan(capture, Parameters(1.25e9))
    assert plan.verdict == "converges"
    assert plan.guest.zero_pages == 2**20
    # And a zero page is read before that is known.
    once_ms = 4 * GIB / 1.25e6 + 2**20 * 0.7e-3
    assert plan.total_time_ms == pytest.approx(once_ms, rel=0.1)


def test_more_than_the_link_carries_does_not_converge() -> None:
    capture = Described(memory_bytes=8 * GIB, dirty_bytes_per_s=2e9).capture()
    assert not WhatIf(capture).converges(Parameters(1.25e9))


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"memory_bytes": 0}, "memory is 4 KiB to 4 PiB"),
        ({"zero_share": 1.5}, "zero_share must lie between 0 and 1"),
        ({"private_share": -0.1}, "private_share must lie between 0 and 1"),
        ({"dirty_bytes_per_s": math.inf}, "dirty_bytes_per_s must be 0 or more"),
        ({"working_set_bytes": 2 * GIB}, "no more than the memory"),
    ],
)
def test_what_no_guest_is_is_refused(wrong: dict[str, float], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Described(**{"memory_bytes": GIB} | wrong)
