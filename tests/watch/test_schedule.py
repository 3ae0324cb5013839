from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.watch.schedule import (
    MAX_WINDOW_S,
    SHORT_S,
    SLACK_S,
    calc_time_s,
    sample_times_ms,
    window_lengths_s,
)

SECONDS = st.floats(1, 86400)


def test_looks_are_dense_at_first_and_then_once_a_second() -> None:
    dense = (25, 50, 100, 200, 400, 700, 1000, 1500, 2000, 3000)
    assert sample_times_ms(6) == (*dense, 4000, 5000, 6000)


@given(seconds=st.floats(1, MAX_WINDOW_S))
def test_looks_come_later_and_later_up_to_the_end(seconds: float) -> None:
    times = sample_times_ms(seconds)
    assert all(left < right for left, right in pairwise(times))
    assert times[-1] == seconds * 1e3


@given(seconds=SECONDS)
def test_windows_are_as_long_as_the_capture_and_no_longer_than_qemu_allows(seconds: float) -> None:
    lengths = window_lengths_s(seconds)
    long = [length for length in lengths if length != SHORT_S]
    assert all(1 <= length <= MAX_WINDOW_S for length in long)
    assert lengths[len(long) :] == (SHORT_S,) * (len(lengths) - len(long))
    # A short window takes a second: QEMU measures no shorter.
    assert sum(long) + len(lengths) - len(long) == pytest.approx(seconds, abs=1)


@pytest.mark.parametrize(
    ("seconds", "lengths"),
    [
        (1, (1,)),
        (3, (3,)),
        (5, (4, SHORT_S)),
        (10, (6, *[SHORT_S] * 4)),
        (61, (MAX_WINDOW_S, *[SHORT_S] * 4)),
        (120, (MAX_WINDOW_S, MAX_WINDOW_S, 2, *[SHORT_S] * 4)),
    ],
)
def test_long_windows_come_first_and_then_a_few_short_ones(
    seconds: float, lengths: tuple[float, ...]
) -> None:
    assert window_lengths_s(seconds) == lengths


@given(window_s=st.one_of(st.just(SHORT_S), st.floats(1, MAX_WINDOW_S)))
def test_qemu_measures_whole_seconds_for_longer_than_the_window(window_s: float) -> None:
    asked = calc_time_s(window_s)
    assert 1 <= asked <= 60
    assert asked >= window_s + (SLACK_S if window_s > SHORT_S else 0)
