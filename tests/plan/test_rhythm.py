from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kvmenc.capture import Capture, Window, WindowPoint, curve_of
from kvmenc.plan import Parameters, interval_of
from kvmenc.plan.rhythm import ALWAYS_ON, THROTTLED, Pace, Rhythm, rhythm_of
from kvmenc.plan.whatif import WhatIf, converges
from tests.plan.guests import GIB_PAGES, guest
from tests.plan.test_precopy import IDLE

LONG_MS = (25, 50, 100, 200, 400, 700, 1000, 1500, 2000, 3000, 4000, 5000)
SHORT_MS = (25, 50, 100, 200, 400, 500)


def written(since_ms: float, until_ms: float, on_ms: float, off_ms: float) -> float:
    """How long a guest that starts with a burst at 0 was on, millisecond by millisecond."""
    period = on_ms + off_ms
    return sum((ms % period) < on_ms for ms in range(round(since_ms), round(until_ms)))


def bursty(on_ms: float, off_ms: float, pages_per_ms: float, limit: int = 10**9) -> Capture:
    """Seen in a long window and in four short ones, each at another moment."""
    starts = [0.0, *(7000 + 1130.0 * n for n in range(4))]
    windows = [
        Window(
            start,
            1.0,
            "time",
            tuple(
                WindowPoint(ms, 1.0, (0,), (min(limit, int(on * pages_per_ms)),))
                for ms in times
                for on in [written(start, start + ms, on_ms, off_ms)]
            ),
        )
        for start, times in zip(starts, (LONG_MS, *[SHORT_MS] * 4), strict=True)
    ]
    return replace(guest(4 * GIB_PAGES, 0, IDLE), windows=tuple(windows), curve=curve_of(windows))


@pytest.mark.parametrize(("on_ms", "off_ms"), [(300, 700), (500, 500), (1500, 1500), (200, 900)])
def test_bursts_are_seen_and_about_as_long_as_they_are(on_ms: float, off_ms: float) -> None:
    """A few seconds are a small sample: within a factor of four."""
    found = rhythm_of(bursty(on_ms, off_ms, 20))
    assert off_ms / 4 < found.off_ms < off_ms * 4
    assert on_ms / 4 < found.on_ms < on_ms * 4


@pytest.mark.parametrize("pages_per_ms", [0.01, 1, 100])
def test_a_steady_guest_has_no_rhythm(pages_per_ms: float) -> None:
    assert rhythm_of(bursty(100, 0, pages_per_ms)) == ALWAYS_ON


def test_a_guest_that_has_written_all_it_writes_is_not_off() -> None:
    assert rhythm_of(bursty(100, 0, 100, limit=3_000)) == ALWAYS_ON


def test_without_windows_nothing_is_known() -> None:
    assert rhythm_of(guest(GIB_PAGES, 0, [(100, 0, 5_000)])) == ALWAYS_ON


@given(
    on_ms=st.floats(1, 5000),
    off_ms=st.floats(1, 5000),
    phase=st.floats(0, 1),
    now_ms=st.floats(0, 1e6),
)
def test_changes_come_in_turn_and_the_speed_is_1_on_the_average(
    on_ms: float, off_ms: float, phase: float, now_ms: float
) -> None:
    rhythm = Rhythm(on_ms, off_ms, phase)
    changes = [now_ms]
    for _ in range(5):
        changes.append(rhythm.next_change_ms(changes[-1] + 1e-6))
    assert changes == sorted(changes)
    assert changes[4] - changes[2] == pytest.approx(on_ms + off_ms, abs=1e-3)
    pieces = list(itertools.pairwise(changes))[1:3]
    gone = sum((b - a) * rhythm.speed((a + b) / 2) for a, b in pieces)
    assert gone == pytest.approx(on_ms + off_ms, rel=1e-3, abs=1e-2)


def test_a_throttled_guest_uses_more_or_less_of_what_is_left_to_it() -> None:
    assert Pace().at(0, 0) == 1
    assert Pace().at(0, 20) == pytest.approx(0.8 * THROTTLED)
    assert Pace(throttled=1).at(0, 99) == pytest.approx(0.01)
    assert Pace(speed=0.5, throttled=5).at(0, 50) == pytest.approx(0.5)


def test_a_pause_ends_a_migration_that_the_mean_pace_never_would() -> None:
    """Faster than the link in its bursts; in 100 ms on the average more than the pause takes."""
    capture = bursty(300, 700, 40)
    steady = replace(capture, windows=())
    parameters = Parameters(128e6, downtime_limit_ms=20)
    assert not WhatIf(steady).converges(parameters)
    for phase in (0.0, 0.3, 0.7):
        outcome = WhatIf(capture).outcome(parameters, phase=phase)
        assert converges(outcome, parameters)
    assert interval_of(capture, parameters).probability_converges > 0.5
