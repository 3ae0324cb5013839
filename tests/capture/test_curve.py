"""One curve from windows: exact for one, and page by page against slow arithmetic for several."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from kvmenc.capture import CurvePoint, Window, WindowPoint, curve_of
from tests.capture.captures import windows_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Knots = list[tuple[Fraction, Fraction]]


def one_class(*points: tuple[float, int]) -> Window:
    return Window(0, 0, "time", tuple(WindowPoint(ms, 0.5, (n,), (0,)) for ms, n in points))


def test_no_windows_make_no_curve() -> None:
    assert curve_of(()) == ()


@given(windows_of([50, 2**40], 0.0))
def test_the_curve_of_one_window_is_that_window_with_no_class_falling(window: Window) -> None:
    private = shared = 0
    for point, it in zip(curve_of([window]), window.points, strict=True):
        private = max(private, sum(it.private_pages))
        shared = max(shared, sum(it.shared_pages))
        assert point == CurvePoint(it.ms, private, shared, it.error_ms)


def test_where_all_windows_last_the_curve_is_their_mean() -> None:
    curve = curve_of([one_class((10, 10), (20, 40)), one_class((10, 20), (19, 20), (20, 30))])
    assert [(it.ms, it.private_pages) for it in curve] == [(10, 15), (20, 35)]


def test_where_a_window_ends_the_curve_neither_jumps_nor_falls() -> None:
    """The short one saw ten times as much; from its end on, the long one's growth goes on."""
    curve = curve_of([one_class((10, 100)), one_class((10, 10), (20, 15), (30, 20))])
    assert [it.private_pages for it in curve] == [55, 60, 65]


def test_the_curve_never_exceeds_what_some_window_saw() -> None:
    curve = curve_of([one_class((10, 100)), one_class((10, 0), (20, 100))])
    assert [it.private_pages for it in curve] == [50, 100]


def knots(window: Window, field: str) -> Knots:
    """Exact, never falling, from (0, 0) on."""
    found: Knots = [(Fraction(0), Fraction(0))]
    for point in window.points:
        found.append((Fraction(point.ms), max(found[-1][1], Fraction(sum(getattr(point, field))))))
    return found


def at(curve: Knots, ms: Fraction) -> Fraction:
    for (left_ms, left), (right_ms, right) in pairwise(curve):
        if ms <= right_ms:
            return left + (right - left) * (ms - left_ms) / (right_ms - left_ms)
    return curve[-1][1]


def slow(windows: Sequence[Window], field: str) -> list[Fraction]:
    curves = [knots(window, field) for window in windows]
    times = max((knots(window, field) for window in windows), key=lambda it: it[-1][0])
    pages, found = Fraction(0), []
    for (before_ms, _), (ms, _) in pairwise(times):
        grew = [at(it, ms) - at(it, before_ms) for it in curves if it[-1][0] >= ms]
        pages += sum(grew, Fraction(0)) / len(grew)
        found.append(min(pages, max(it[-1][1] for it in curves)))
    return found


@given(st.lists(windows_of([30, 70], 0.0), min_size=1, max_size=4))
def test_several_windows_against_exact_arithmetic(windows: list[Window]) -> None:
    curve = curve_of(windows)
    for field in ("private_pages", "shared_pages"):
        exact = slow(windows, field)
        assert len(curve) == len(exact)
        for point, pages in zip(curve, exact, strict=True):
            assert abs(getattr(point, field) - pages) <= Fraction(1, 2) + Fraction(1, 10**6)
