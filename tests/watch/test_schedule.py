from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.watch.schedule import MAX_WINDOW_S, sample_times_ms, window_lengths_s

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
    assert all(1 <= length <= MAX_WINDOW_S for length in lengths)
    assert sum(lengths) == pytest.approx(seconds, abs=1)
    assert window_lengths_s(MAX_WINDOW_S) == (MAX_WINDOW_S,)
