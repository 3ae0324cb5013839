"""Each number against the words that define it."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.backtest.measures import (
    brier,
    mean,
    median,
    p90,
    range_percent,
    share,
    spread,
    within,
)
from kvmenc.backtest.result import Share

numbers = st.floats(-1e6, 1e6)


def test_of_nothing_there_is_no_number() -> None:
    assert median([]) is p90([]) is mean([]) is brier([]) is None
    assert spread([]) is None
    assert range_percent([]) is range_percent([5.0]) is range_percent([-1.0, 1.0]) is None
    assert share([]) == Share(0, 0)
    assert Share(0, 0).percent is None


@given(st.lists(numbers, min_size=1, max_size=40))
def test_median_and_mean_are_those_of_python(values: list[float]) -> None:
    assert median(values) == pytest.approx(statistics.median(values))
    assert mean(values) == pytest.approx(statistics.fmean(values), abs=1e-6)


@given(st.lists(numbers, min_size=1, max_size=40))
def test_p90_is_the_least_value_that_nine_tenths_do_not_exceed(values: list[float]) -> None:
    enough = (x for x in sorted(values) if 10 * sum(y <= x for y in values) >= 9 * len(values))
    assert p90(values) == next(enough)


@pytest.mark.parametrize(("count", "expected"), [(1, 1), (9, 9), (10, 9), (11, 10), (20, 18)])
def test_p90_of_counted_values(count: int, expected: int) -> None:
    assert p90(range(1, count + 1)) == expected


@given(st.lists(numbers, min_size=1, max_size=40))
def test_a_spread_has_no_signs(errors: list[float]) -> None:
    sizes = [abs(it) for it in errors]
    found = spread(errors)
    assert found
    assert (found.runs, found.median_percent, found.p90_percent) == (
        len(errors),
        median(sizes),
        p90(sizes),
    )


def test_brier_by_hand() -> None:
    """Sure and right 0, sure and wrong 1, undecided a quarter."""
    assert brier([(1.0, True), (0.0, False)]) == 0
    assert brier([(1.0, False)]) == 1
    assert brier([(0.5, True), (0.5, False), (0.5, False)]) == 0.25
    assert brier([(0.8, True), (0.3, False), (0.6, False)]) == pytest.approx(0.49 / 3)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=40))
def test_brier_is_the_mean_square_of_the_surprise(pairs: list[tuple[float, bool]]) -> None:
    surprises = [1 - p if happened else p for p, happened in pairs]
    expected = statistics.fmean(it * it for it in surprises)
    assert brier(pairs) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("predicted", "actual", "expected"),
    [
        (1100, 1000, True),  # 100 ms are more than 3 %
        (1100.1, 1000, False),
        (900, 1000, True),
        (103_000, 100_000, True),  # 3 % are more than 100 ms
        (103_001, 100_000, False),
        (96_999, 100_000, False),
    ],
)
def test_within_takes_the_larger_of_both(predicted: float, actual: float, expected: bool) -> None:
    assert within(predicted, actual, 0.03, 100) is expected


@given(st.lists(st.floats(1, 1e6), min_size=2, max_size=40))
def test_the_range_is_of_the_mean(values: list[float]) -> None:
    ordered = sorted(values)
    expected = (ordered[-1] - ordered[0]) / statistics.fmean(values) * 100
    assert range_percent(values) == pytest.approx(expected)


@given(st.lists(st.booleans(), max_size=40))
def test_a_share_counts(facts: list[bool]) -> None:
    found = share(facts)
    assert (found.hold, found.of) == (facts.count(True), len(facts))
    if facts:
        assert found.percent == pytest.approx(100 * facts.count(True) / len(facts))
