from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from kvmenc.capture import Window, WindowPoint, curve_of
from kvmenc.plan import Parameters, interval_of, make_plan
from kvmenc.report.advice import interval_words
from tests.plan.guests import GIB_PAGES, guest
from tests.plan.test_precopy import IDLE

if TYPE_CHECKING:
    from kvmenc.capture import Capture


def window(start_ms: float, rate_pps: int) -> Window:
    """A guest of one block that writes so many pages a second."""
    points = tuple(
        WindowPoint(ms, 1.0, (0,), (int(rate_pps * ms / 1000),)) for ms in (500.0, 1000.0)
    )
    return Window(start_ms, 1.0, "time", points)


def watched(*rates_pps: int) -> Capture:
    windows = tuple(window(2000.0 * i, rate) for i, rate in enumerate(rates_pps))
    return replace(guest(GIB_PAGES, 0, IDLE), windows=windows, curve=curve_of(windows))


def test_several_windows_give_the_spread_of_their_own_plans() -> None:
    capture = watched(5_000, 10_000, 15_000)
    interval = interval_of(capture, Parameters())
    assert interval is not None
    totals = [make_plan(watched(rate), Parameters()).total_time_ms for rate in (5_000, 15_000)]
    assert [interval.low_ms, interval.high_ms] == totals
    assert interval.probability_converges == 1
    assert (interval.basis, interval.plans) == ("windows", 3)
    total = make_plan(capture, Parameters()).total_time_ms
    assert total is not None
    assert interval.low_ms is not None
    assert interval.high_ms is not None
    assert interval.low_ms < total < interval.high_ms
    assert interval_words(interval) == (
        "Planned from each of the 3 windows alone: 100% converge, in 9.37 s to 14.4 s."
    )


def test_the_share_of_windows_that_converge_is_the_probability() -> None:
    interval = interval_of(watched(5_000, 60_000, 10_000, 50_000), Parameters())
    assert interval is not None
    assert interval.probability_converges == 0.5


def test_where_no_window_converges_there_is_no_time() -> None:
    interval = interval_of(watched(60_000, 50_000), Parameters())
    assert interval is not None
    assert (interval.low_ms, interval.high_ms) == (None, None)
    assert interval_words(interval).endswith("alone: 0% converge.")


def test_a_single_window_is_tried_with_other_times_within_their_errors() -> None:
    capture = watched(10_000)
    interval = interval_of(capture, Parameters())
    assert interval is not None
    assert interval.basis == "time-errors"
    assert interval == interval_of(capture, Parameters())
    total = make_plan(capture, Parameters()).total_time_ms
    assert total is not None
    assert interval.low_ms == pytest.approx(total, rel=0.02)
    assert interval.high_ms == pytest.approx(total, rel=0.02)
    assert interval.low_ms != interval.high_ms


def test_errors_larger_than_the_time_between_looks_do_not_swap_looks() -> None:
    capture = watched(10_000)
    curve = tuple(replace(point, error_ms=5_000.0) for point in capture.curve)
    interval = interval_of(replace(capture, curve=curve, windows=()), Parameters())
    assert interval is not None
    assert 0 <= interval.probability_converges <= 1


def test_a_curve_without_errors_has_no_interval() -> None:
    assert interval_of(guest(GIB_PAGES, 0, IDLE), Parameters()) is None
