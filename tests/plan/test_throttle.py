from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.plan import PROFILES, Parameters, make_plan
from kvmenc.plan.throttle import MAX_THROTTLE_PCT, GuestClock, SyncTimer, Throttle
from kvmenc.plan.whatif import WhatIf
from tests.plan.guests import GIB_PAGES, guest

#: Writes 50,000 of a million pages a second, more than 128 MiB/s send.
BUSY = guest(4 * GIB_PAGES, 0, [(100, 0, 5_000), (1000, 0, 50_000)])


def test_the_second_bad_period_throttles_and_then_every_second_one() -> None:
    throttle = Throttle(enabled=True)
    steps = []
    for _ in range(8):
        throttle.period_ended(51, 100)
        steps.append(throttle.pct)
    assert steps == [0, 20, 20, 30, 30, 40, 40, 50]


def test_a_good_period_between_two_bad_ones_changes_nothing() -> None:
    throttle = Throttle(enabled=True)
    assert not throttle.period_ended(51, 100)
    assert not throttle.period_ended(50, 100)
    assert throttle.period_ended(51, 100)


def test_there_is_an_end_to_it() -> None:
    throttle = Throttle(enabled=True)
    raised = [throttle.period_ended(100, 100) for _ in range(40)]
    assert throttle.pct == MAX_THROTTLE_PCT
    assert not throttle.may_rise
    assert raised.count(True) == 9


def test_a_hot_set_that_no_throttle_helps_is_given_up_soon() -> None:
    hot = guest(GIB_PAGES, 0, [(10, 0, 10_500), (1000, 0, 10_500)])
    outcome = WhatIf(hot).outcome(Parameters(auto_converge=True))
    assert outcome.end == "no-progress"
    assert outcome.counters.throttle_pct == MAX_THROTTLE_PCT
    assert outcome.counters.sync_count < 1000


def test_without_the_capability_nothing_is_throttled() -> None:
    throttle = Throttle(enabled=False)
    assert not any(throttle.period_ended(100, 1) for _ in range(9))
    assert not throttle.may_rise


@given(
    changes=st.lists(st.tuples(st.floats(0, 1e4), st.floats(0.01, 1)), max_size=6),
    after_ms=st.floats(0, 1e4),
)
def test_the_guests_clock_adds_up_what_it_got(
    changes: list[tuple[float, float]], after_ms: float
) -> None:
    clock, now, own, speed = GuestClock(), 0.0, 0.0, 1.0
    for ms, slower in changes:
        now, own = now + ms, own + ms * speed
        clock.change(now, slower)
        speed = slower
    assert clock.ms(now + after_ms) == pytest.approx(own + after_ms * speed, abs=1e-6)


def test_the_timer_rings_where_no_sync_was_made_from_one_tick_to_the_next() -> None:
    timer = SyncTimer(5000)
    assert [timer.rings(ms, syncs) for ms, syncs in ((4999, 1), (5000, 1), (10_000, 1))] == [
        False,
        False,  # nothing is, in the first pass over RAM
        False,
    ]
    assert not timer.rings(15_000, 2)
    assert timer.rings(20_000, 2)
    assert not timer.rings(20_001, 3)
    assert not timer.rings(25_000, 3)
    assert timer.rings(30_000, 3)


def test_no_timer_never_rings() -> None:
    timer = SyncTimer(None)
    assert timer.next_ms == float("inf")
    assert not timer.rings(1e12, 5)


def test_auto_converge_ends_what_else_never_would() -> None:
    without, throttled = (
        WhatIf(BUSY).outcome(Parameters(auto_converge=on)) for on in (False, True)
    )
    assert without.end == "no-progress"
    assert throttled.end == "completed"
    assert throttled.counters.throttle_pct >= 30


def test_the_timer_of_newer_versions_makes_more_syncs() -> None:
    large = guest(32 * GIB_PAGES, 0, [(100, 0, 5_000), (1000, 0, 50_000)])
    counts = {
        version: WhatIf(large, PROFILES[version])
        .outcome(Parameters(auto_converge=True))
        .counters.sync_count
        for version in ("7.2", "10.0")
    }
    assert counts["10.0"] > counts["7.2"]


def test_the_throttle_is_shown_while_it_lasts() -> None:
    limited = Parameters(auto_converge=True, time_limit_ms=60e3)
    answer = make_plan(BUSY, limited).query_migrate
    assert answer.status == "active"
    assert answer.cpu_throttle_percentage == 30
