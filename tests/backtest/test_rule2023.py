"""The 2023 rule against what its author published, and what must hold of any such rule."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.backtest import Rule2023, builtin_backtest
from kvmenc.backtest.grid import compare_grid
from tests.plan.guests import curves, guest

if TYPE_CHECKING:
    from kvmenc.backtest.result import Cell

#: As published, read a second time from the cover letter's text: rows from 100 Mbps to 40 Gbps,
#: columns from 125 ms to unlimited.
PUBLISHED = """
    -   -   -   -   -   16m59s
    -   -   -   -   -   1m40s
    -   -   -   -   1m41s 50s
    -   -   -   -   1m07s 40s
    48s 46s 31s 28s 25s 20s
    13s 12s 12s 12s 12s 10s
    5s  5s  5s  5s  4s  4s
    3s  3s  3s  3s  3s  3s
"""

#: Not published: by another implementation of the rule. ms rounded up, rounds.
RECOMPUTED = {
    ("5 Gbps", "125ms"): (47742, 65),
    ("5 Gbps", "250ms"): (45637, 54),
    ("5 Gbps", "500ms"): (30658, 10),
    ("2 Gbps", "5000ms"): (100874, 6),
    ("10 Gbps", "250ms"): (11997, 4),
    ("100 Mbps", "unlim"): (1018243, 1),
    ("40 Gbps", "125ms"): (2651, 3),
}


@pytest.fixture(scope="module")
def cells() -> tuple[Cell, ...]:
    return compare_grid().cells


def as_published(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    return f"{seconds // 60}m{seconds % 60:02}s" if seconds >= 60 else f"{seconds}s"


def test_all_48_published_cells_come_out_exactly(cells: tuple[Cell, ...]) -> None:
    assert len(cells) == 48
    assert [as_published(it.rule2023_seconds) for it in cells] == PUBLISHED.split()
    assert [as_published(it.published_seconds) for it in cells] == PUBLISHED.split()


def test_times_and_rounds_are_those_of_another_implementation(cells: tuple[Cell, ...]) -> None:
    found = {(it.bandwidth, it.downtime_limit): it for it in cells}
    for place, (ms, rounds) in RECOMPUTED.items():
        assert math.ceil(found[place].rule2023_ms or 0) == ms
        assert found[place].rule2023_rounds == rounds


def test_the_table_pins_the_units_and_the_size_of_a_zero_page() -> None:
    """With Mbps of 1000 * 1000 bits 20 cells differ, with zero pages of 9 bytes one does."""
    counts = compare_grid().counts
    assert counts.reproduced == 48
    assert counts.reproduced_with_1000 == 48 - 20
    assert counts.reproduced_with_9_bytes == 48 - 1


def test_every_cell_says_where_its_difference_comes_from(cells: tuple[Cell, ...]) -> None:
    for it in cells:
        assert it.flips == ((it.rule2023_ms is None) != (it.kvmenc_ms is None))
        assert (it.why == "neither") == (it.rule2023_ms is None and it.kvmenc_ms is None)
        if it.rule2023_ms is not None and it.kvmenc_ms is not None:
            assert it.zero_byte_ms is not None
            assert it.other_ms is not None
            parts = it.rule2023_ms + it.zero_byte_ms + it.other_ms
            assert parts == pytest.approx(it.kvmenc_ms)
            assert (it.why == "rounds") == (it.rule2023_rounds != 1)


def slow_dirty_pages(points: list[tuple[float, float]], most: float, ms: float) -> float:
    """The rule's curve, from its words."""
    if len(points) == 1:
        points = [(0.0, 0.0), *points]
    (x0, y0), (x1, y1) = points[0], points[1]
    if ms < x0:
        at_zero = max(0.0, y0 - (y1 - y0) / (x1 - x0) * x0)
        return at_zero + (y0 - at_zero) * ms / x0
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if ms <= x1:
            return y0 + (y1 - y0) * (ms - x0) / (x1 - x0)
    (x0, y0), (x1, y1) = points[-2:]
    return max(y1, min(most, y1 + (y1 - y0) / (x1 - x0) * (ms - x1)))


@given(points=curves(0, 4000), zero=st.integers(0, 1000), ms=st.floats(0, 1e6))
def test_the_curve_is_where_the_words_of_the_rule_put_it(
    points: list[tuple[float, int, int]], zero: int, ms: float
) -> None:
    rule = Rule2023.of(guest(4000, 0, points, zero))
    expected = slow_dirty_pages([(x, float(y)) for x, _, y in points], 4000 - zero, ms)
    assert rule.dirty_pages(ms) == pytest.approx(expected, abs=1e-3, rel=1e-6)


@given(points=curves(0, 4000), bandwidth=st.floats(1e4, 1e9), limit=st.floats(1, 1e5))
def test_a_migration_that_ends_adds_up(
    points: list[tuple[float, int, int]], bandwidth: float, limit: float
) -> None:
    rounds = Rule2023.of(guest(4000, 0, points, 1000)).rounds(bandwidth, limit)
    if rounds:
        assert rounds.ms[-1] <= limit
        assert all(ms > limit for ms in rounds.ms[:-1])
        assert rounds.ms[0] == pytest.approx((3000 * 4104 + 1000 * 8) * 1000 / bandwidth)
        assert rounds.sent_bytes == pytest.approx(rounds.total_ms * bandwidth / 1000)


@given(points=curves(0, 4000), bandwidth=st.floats(1e4, 1e9), limit=st.floats(1, 1e5))
def test_a_longer_pause_never_makes_a_migration_longer(
    points: list[tuple[float, int, int]], bandwidth: float, limit: float
) -> None:
    rule = Rule2023.of(guest(4000, 0, points, 1000))
    short, long = rule.rounds(bandwidth, limit), rule.rounds(bandwidth, limit * 2)
    if short:
        assert long
        assert long.total_ms <= short.total_ms


def test_the_built_in_backtest_holds_the_table_and_the_published_runs() -> None:
    result = builtin_backtest()
    assert result.grid == compare_grid()
    assert len(result.runs) == 14
