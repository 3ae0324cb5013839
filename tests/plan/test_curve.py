from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.plan.curve import ClassCurve, DirtyCurve
from tests.plan.guests import Points, captures, curves, guest

if TYPE_CHECKING:
    from kvmenc.capture import Capture


def oracle(ms: list[float], pages: list[float], limit: float, t: float) -> float:
    """The rule of the docstring, one number at a time."""
    if t <= 0:
        return 0
    first_ms, first = (ms[0], pages[0]) if len(ms) == 1 else (ms[1] - ms[0], pages[1] - pages[0])
    last_ms, last = (
        (ms[-1], pages[-1]) if len(ms) == 1 else (ms[-1] - ms[-2], pages[-1] - pages[-2])
    )
    if t <= ms[0]:
        at_zero = max(0, pages[0] - first / first_ms * ms[0])
        value = at_zero + (pages[0] - at_zero) * t / ms[0]
    elif t >= ms[-1]:
        value = pages[-1] + last / last_ms * (t - ms[-1])
    else:
        i = next(i for i in range(len(ms)) if t <= ms[i])
        value = pages[i - 1] + (pages[i] - pages[i - 1]) * (t - ms[i - 1]) / (ms[i] - ms[i - 1])
    return min(value, limit)


@given(points=curves(1000, 4000), t=st.floats(1e-3, 1e7))
def test_every_point_is_where_the_slow_rule_puts_it(points: Points, t: float) -> None:
    ms, private, shared = (list(column) for column in zip(*points, strict=True))
    got = DirtyCurve(
        ClassCurve.through(ms, private, 1000), ClassCurve.through(ms, shared, 4000)
    ).pages([0.0, t])
    for pages, column, limit in zip(got, (private, shared), (1000, 4000), strict=True):
        assert pages[0] == 0
        assert pages[1] == pytest.approx(oracle(ms, column, limit, t), abs=1e-3, rel=1e-6)


@given(capture=captures(), times=st.lists(st.floats(0, 1e9), min_size=2, max_size=20))
def test_more_time_never_dirties_less_nor_more_than_there_is(
    capture: Capture, times: list[float]
) -> None:
    private, shared = DirtyCurve.from_capture(capture).pages(sorted(times))
    assert (np.diff(private) >= 0).all()
    assert (np.diff(shared) >= 0).all()
    assert private.max() <= capture.private_pages
    assert shared.max() <= capture.npages - capture.private_pages


def test_pages_rewritten_faster_than_was_looked_are_dirty_at_once() -> None:
    """The hot set is whole in the first point: any shorter time must be taken to dirty it too."""
    curve = DirtyCurve.from_capture(guest(1000, 0, [(100, 0, 70), (200, 0, 70)]))
    assert curve.pages([0, 1, 100, 1e9])[1].tolist() == [0, 70, 70, 70]


def test_a_single_point_is_a_straight_line_from_nothing_to_all_pages() -> None:
    curve = DirtyCurve.from_capture(guest(1000, 1000, [(100, 50, 0)]))
    assert curve.pages([10, 100, 1000, 1e9])[0] == pytest.approx([5, 50, 500, 1000])


def test_pages_that_flipped_away_do_not_outgrow_their_class() -> None:
    """The curve may count a page that was private when written and is shared by now."""
    curve = DirtyCurve.from_capture(guest(1000, 30, [(100, 50, 0), (200, 60, 0)]))
    assert curve.pages([100, 1e6])[0].tolist() == [30, 30]
