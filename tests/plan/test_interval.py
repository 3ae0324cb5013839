from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kvmenc.capture import CurvePoint, Window, WindowPoint, curve_of
from kvmenc.plan import Parameters, interval_of, make_plan
from kvmenc.plan.interval import _bounds
from kvmenc.report.advice import interval_words
from tests.plan.guests import GIB_PAGES, guest
from tests.plan.test_precopy import IDLE

if TYPE_CHECKING:
    from kvmenc.capture import Capture
    from kvmenc.plan.result import Interval


def window(start_ms: float, rate_pps: int) -> Window:
    """A guest of one block that writes so many pages a second."""
    points = tuple(
        WindowPoint(ms, 1.0, (0,), (int(rate_pps * ms / 1000),)) for ms in (500.0, 1000.0)
    )
    return Window(start_ms, 1.0, "time", points)


def watched(*rates_pps: int) -> Capture:
    windows = tuple(window(2000.0 * i, rate) for i, rate in enumerate(rates_pps))
    return replace(guest(GIB_PAGES, 0, IDLE), windows=windows, curve=curve_of(windows))


def total_ms(capture: Capture) -> float:
    total = make_plan(capture, Parameters()).total_time_ms
    assert total is not None
    return total


def test_windows_that_differ_widen_the_interval_around_the_plan() -> None:
    alike, unlike = watched(10_000, 10_000, 10_000), watched(5_000, 10_000, 15_000)
    narrow, wide = (interval_of(it, Parameters()) for it in (alike, unlike))
    for interval, capture in ((narrow, alike), (wide, unlike)):
        assert (interval.basis, interval.plans) == ("windows", 24)
        assert interval.probability_converges == 1
        assert not interval.knife_edge
        assert interval.low_ms is not None
        assert interval.high_ms is not None
        assert interval.low_ms < total_ms(capture) < interval.high_ms
    assert width(wide) > 2 * width(narrow)


def width(interval: Interval) -> float:
    assert interval.low_ms is not None
    assert interval.high_ms is not None
    return interval.high_ms - interval.low_ms


def test_the_share_of_plans_that_converge_is_the_probability() -> None:
    interval = interval_of(watched(5_000, 60_000, 10_000, 50_000), Parameters())
    assert 0.2 < interval.probability_converges < 0.95
    assert interval.knife_edge
    assert interval_words(interval).startswith("ON A KNIFE EDGE: ")


def test_where_no_plan_converges_there_is_no_time() -> None:
    interval = interval_of(watched(60_000, 50_000), Parameters())
    assert (interval.low_ms, interval.high_ms) == (None, None)
    assert not interval.knife_edge
    assert interval_words(interval).startswith("0 % of 24 plans converge (")


def test_a_single_window_says_that_it_is_one_and_gives_the_same_each_time() -> None:
    capture = watched(10_000)
    interval = interval_of(capture, Parameters())
    assert interval.basis == "one-window"
    assert interval == interval_of(capture, Parameters())
    assert width(interval) < 0.15 * total_ms(capture)
    assert "how much the guest itself changes is not known" in interval_words(interval)


def test_errors_larger_than_the_time_between_looks_do_not_swap_looks() -> None:
    curve = tuple(CurvePoint(ms, 0, n, 500.0) for n, ms in enumerate((10.0, 20.0, 30.0)))
    capture = replace(guest(GIB_PAGES, 0, IDLE), curve=curve)
    assert interval_of(capture, Parameters()).probability_converges == 1


@given(values=st.lists(st.floats(0, 1e9), min_size=1, max_size=40))
def test_the_bounds_are_quantiles_and_a_grain(values: list[float]) -> None:
    low, high = _bounds(values, 50)
    ordered = sorted(values)
    assert low is not None
    assert high is not None
    assert max(0.0, ordered[0] - 50) - 1e-6 <= low <= high <= ordered[-1] + 100 + 1e-6
    assert sum(it < low for it in values) <= len(values) * 0.05 + 1
