from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kvmenc.capture import BlockFacts, DeviceCurve, DevicePoint, SegmentFacts
from kvmenc.plan.curve import ClassCurve, DirtyCurve
from kvmenc.plan.roads import ByRoad
from kvmenc.plan.segments import segments_of
from tests.plan.guests import Points, capture_of, captures, curves, guest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from kvmenc.capture import Capture

ROADS = ByRoad._fields


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


def by_class(
    capture: Capture, times: Sequence[float]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Private and shared pages dirtied within each time."""
    private, shared = np.zeros(len(times)), np.zeros(len(times))
    for part in DirtyCurve.from_capture(capture).parts:
        pages = private if part.road == ROADS.index("encrypted") else shared
        pages += part.curve.at(np.array(times))
    return private, shared


@given(points=curves(1000, 4000), t=st.floats(1e-3, 1e7))
def test_every_point_is_where_the_slow_rule_puts_it(points: Points, t: float) -> None:
    ms, private, shared = (list(column) for column in zip(*points, strict=True))
    for column, limit in ((private, 1000), (shared, 4000)):
        pages = ClassCurve.through(ms, column, limit).at(np.array([0.0, t]))
        assert pages[0] == 0
        assert pages[1] == pytest.approx(oracle(ms, column, limit, t), abs=1e-3, rel=1e-6)


@given(capture=captures(), times=st.lists(st.floats(0, 1e9), min_size=2, max_size=20))
def test_more_time_never_dirties_less_nor_more_than_there_is(
    capture: Capture, times: list[float]
) -> None:
    private, shared = by_class(capture, sorted(times))
    assert (np.diff(private) >= 0).all()
    assert (np.diff(shared) >= 0).all()
    assert private.max() <= capture.private_pages
    assert shared.max() <= capture.npages - capture.private_pages


def test_pages_rewritten_faster_than_was_looked_are_dirty_at_once() -> None:
    """The hot set is whole in the first point: any shorter time must be taken to dirty it too."""
    _, shared = by_class(guest(1000, 0, [(100, 0, 70), (200, 0, 70)]), [0, 1, 100, 1e9])
    assert shared.tolist() == [0, 70, 70, 70]


def test_a_single_point_is_a_straight_line_from_nothing_to_all_pages() -> None:
    private, _ = by_class(guest(1000, 1000, [(100, 50, 0)]), [10, 100, 1000, 1e9])
    assert private == pytest.approx([5, 50, 500, 1000])


def test_pages_that_flipped_away_do_not_outgrow_their_class() -> None:
    """The curve may count a page that was private when written and is shared by now."""
    private, _ = by_class(guest(1000, 30, [(100, 50, 0), (200, 60, 0)]), [100, 1e6])
    assert private.tolist() == [30, 30]


@given(points=curves(1000, 0), pages=st.floats(0, 1000), t=st.floats(0, 1e6))
def test_a_curve_split_at_some_pages_adds_up_again(points: Points, pages: float, t: float) -> None:
    ms, private, _ = (list(column) for column in zip(*points, strict=True))
    curve, at = ClassCurve.through(ms, private, 1000), np.array([t])
    first, after = curve.split(pages)
    assert first.at(at) + after.at(at) == pytest.approx(curve.at(at), abs=1e-6)
    assert first.at(at) == pytest.approx(np.minimum(curve.at(at), pages), abs=1e-6)


def mapped(dirty: list[int], points: Points, device: DeviceCurve | None = None) -> Capture:
    """Shared RAM of as many segments of 1000 pages."""
    segments = tuple(SegmentFacts(1000, 0, 0, 0, pages) for pages in dirty)
    block = BlockFacts("pc.ram", 1000 * len(dirty), 0, 0, 0, segments=segments)
    return replace(capture_of([block], points), device=device)


def test_what_was_watched_is_dirtied_where_it_was_seen_and_the_rest_elsewhere() -> None:
    capture = mapped([0, 300, 100], [(1000, 0, 400), (2000, 0, 800)])
    segments = segments_of(capture.blocks, 2**18)
    seen, beyond = DirtyCurve.from_capture(capture).parts
    assert seen.shares(segments) == pytest.approx([0, 0.75, 0.25])
    assert beyond.shares(segments) == pytest.approx([1000 / 2600, 700 / 2600, 900 / 2600])
    assert seen.curve.at(np.array([500, 5000])) == pytest.approx([200, 400])
    assert beyond.curve.at(np.array([500, 2000])) == pytest.approx([0, 400])


def test_devices_write_on_top_of_what_vcpus_write() -> None:
    points = (DevicePoint(500, (50,), 40, 60), DevicePoint(1000, (40,), 30, 60))
    capture = mapped([1000], [(1000, 0, 1000)], DeviceCurve(points, 0.95, 10, 100))
    curve = DirtyCurve.from_capture(capture)
    assert [it.by_devices for it in curve.parts] == [False, True]
    assert curve.pages(1000) == 1000 + 50
