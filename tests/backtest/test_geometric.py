from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.backtest import Geometric
from tests.plan.guests import guest

GIB = 2**30


def test_a_round_is_the_one_before_times_dirty_rate_over_bandwidth() -> None:
    """8 GiB at 1 Gbit/s, 650 Mbit/s dirtied, 300 ms: 13 rounds and 23,319 MiB before the pause."""
    rounds = Geometric(8 * GIB, 81.25e6).rounds(125e6, 300)
    assert rounds
    assert len(rounds.ms) - 1 == 13
    assert rounds.total_ms == pytest.approx(195.9e3, rel=1e-3)
    paused_bytes = rounds.ms[-1] * 125e3
    assert (rounds.sent_bytes - paused_bytes) / 2**20 == pytest.approx(23_319, abs=1)
    assert rounds.ms[5] == pytest.approx(rounds.ms[4] * 0.65)


@given(
    memory=st.floats(1, 1e13),
    dirty=st.floats(0, 1e10),
    bandwidth=st.floats(1e6, 1e10),
    limit=st.floats(1, 1e5),
    factor=st.floats(1, 10),
)
def test_more_bandwidth_is_never_slower(
    memory: float, dirty: float, bandwidth: float, limit: float, factor: float
) -> None:
    model = Geometric(memory, dirty)
    slow, fast = model.rounds(bandwidth, limit), model.rounds(bandwidth * factor, limit)
    if slow:
        assert fast
        assert fast.total_ms <= slow.total_ms * (1 + 1e-9)


@given(memory=st.floats(1e6, 1e13), bandwidth=st.floats(1e6, 1e10), over=st.floats(1, 10))
def test_it_does_not_converge_where_as_much_is_dirtied_as_is_sent(
    memory: float, bandwidth: float, over: float
) -> None:
    model = Geometric(memory, bandwidth * over)
    all_ms = memory * 1000 / bandwidth
    assert model.rounds(bandwidth, all_ms / 2) is None
    assert model.rounds(bandwidth, all_ms * 1.01) is not None


def test_the_dirty_rate_of_a_capture_is_that_of_its_first_second() -> None:
    model = Geometric.of(guest(100_000, 0, [(500, 0, 600), (1500, 0, 1000), (9000, 0, 2000)]))
    assert model.memory_bytes == 100_000 * 4096
    assert model.dirty_bytes_per_s == pytest.approx(800 * 4096)
