"""A plot shows each curve where it is."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc import units
from kvmenc.report.plot import Series, plot

LINE = Series("p", [10, 20, 40, 1000], [100, 200, 400, 600])


def test_a_steady_curve_on_a_short_time_is_a_diagonal_between_labelled_axes() -> None:
    lines = plot([Series("p", [100], [30])], 17)
    assert lines == [
        "30 +            p",
        "   |           p",
        "25 +          p",
        "   |         p",
        "20 +        p",
        "   |       p",
        "15 +      p",
        "   |     p",
        "10 +    p",
        "   |   p",
        " 5 +  p",
        "   | p",
        " 0 +p",
        "   ++--+--+--+--+",
        "    0   50 ms",
    ]


def test_a_logarithmic_axis_names_round_times() -> None:
    axis, names = plot([Series("p", [25, 50, 30_000], [1, 2, 3])], 80)[-2:]
    for ms in (50, 100, 1000, 10_000):
        assert units.format_time(ms) in names
    assert axis.count("+") == 10, "the corner, and 50 ms to 20 s in steps of 1, 2, 5"


def test_where_curves_cross_both_are_seen() -> None:
    lines = plot([LINE, Series("s", LINE.ms, LINE.pages)], 60)
    assert any("*" in line for line in lines)
    assert not any("p" in line or "s" in line for line in lines[:-1])


def test_a_curve_that_ends_early_is_drawn_no_further() -> None:
    lines = plot([LINE, Series("d", [40], [5])], 60)
    lowest = lines[-3]
    assert "d" in lowest
    assert lowest.rindex("d") < 40


def grid_of(lines: list[str]) -> tuple[int, list[str]]:
    """Pages of the highest row, and the rows from the lowest up, without their labels."""
    rows = lines[:-2]
    margin = max(row.index("+") for row in rows if "+" in row) + 1
    top = int(rows[0][: margin - 1].replace(",", ""))
    return top, [row[margin:] for row in reversed(rows)]


@given(
    st.lists(
        st.tuples(st.floats(0.01, 1e5), st.integers(0, 10**7)), min_size=1, max_size=20
    ).filter(lambda points: any(pages for _, pages in points))
)
def test_every_column_has_its_mark_at_the_height_of_the_curve(
    steps: list[tuple[float, int]],
) -> None:
    ms, pages, at_ms, at_pages = [], [], 0.0, 0
    for step_ms, step_pages in steps:
        at_ms, at_pages = at_ms + step_ms, at_pages + step_pages
        ms.append(at_ms)
        pages.append(at_pages)
    lines = plot([Series("p", ms, pages)], 80)
    assert max(map(len, lines)) <= 80
    top, rows = grid_of(lines)
    assert top * 0.5 <= pages[-1] <= top
    marks = [
        (column, i) for i, row in enumerate(rows) for column, it in enumerate(row) if it == "p"
    ]
    assert len(marks) == max(map(len, rows)), "one mark in each column"
    heights = [height for _, height in sorted(marks)]
    assert heights == sorted(heights), "a curve that never falls"
    assert heights[-1] == round(pages[-1] / top * (len(rows) - 1))


@pytest.mark.parametrize("pages", [1, 2, 7, 10, 11, 60, 61, 999_999_999_999])
def test_labels_are_round_numbers(pages: int) -> None:
    lines = plot([Series("p", [1, 100], [0, pages])], 80)
    labels = [int(line.split("+")[0].replace(",", "")) for line in lines[:-2] if "+" in line]
    steps = {higher - lower for higher, lower in pairwise(labels)}
    assert len(steps) == 1
    assert str(steps.pop()).strip("0") in {"1", "2", "5"}
    assert 1 <= len(labels) - 1 <= 6
