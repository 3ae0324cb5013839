from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings

from kvmenc.plan import Parameters, make_grid, make_plan
from kvmenc.plan.grid import Grid
from tests.plan.guests import GIB_PAGES, captures, guest
from tests.plan.test_precopy import AMD_STORY, IDLE, PARAMETERS

if TYPE_CHECKING:
    from kvmenc.capture import Capture

BANDWIDTHS = [1e7, 1.25e8, 1.25e9]
LIMITS = [100.0, 1000.0]


@settings(deadline=None, max_examples=25)
@given(capture=captures(), parameters=PARAMETERS)
def test_each_cell_is_what_a_plan_says(capture: Capture, parameters: Parameters) -> None:
    grid = make_grid(capture, BANDWIDTHS, LIMITS, parameters)
    cells = iter(grid.cells)
    for bandwidth in BANDWIDTHS:
        for limit_ms in LIMITS:
            one = replace(
                parameters, max_bandwidth_bytes_per_s=bandwidth, downtime_limit_ms=limit_ms
            )
            plan, cell = make_plan(capture, one), next(cells)
            assert cell.max_bandwidth_bytes_per_s == bandwidth
            assert cell.downtime_limit_ms == limit_ms
            assert cell.verdict == plan.verdict
            assert cell.total_time_ms == plan.total_time_ms
            assert cell.downtime_ms == plan.downtime_ms
            assert cell.sync_count == plan.query_migrate.ram.dirty_sync_count
    assert next(cells, None) is None
    assert [bandwidth for bandwidth, _ in grid.rows()] == BANDWIDTHS
    assert [cell for _, row in grid.rows() for cell in row] == list(grid.cells)


@settings(deadline=None, max_examples=10)
@given(capture=captures())
def test_a_grid_survives_json(capture: Capture) -> None:
    grid = make_grid(capture, BANDWIDTHS, LIMITS, Parameters())
    assert msgspec.json.decode(msgspec.json.encode(grid), type=Grid) == grid


def test_an_idle_shared_guest_is_sensitive_to_bandwidth_most_and_to_writes_not_at_all() -> None:
    grid = make_grid(guest(GIB_PAGES, 0, IDLE), [1e8], [300.0], Parameters())
    first = grid.sensitivity[0]
    assert first.parameter == "bandwidth"
    assert first.less_total_time_ms == pytest.approx(GIB_PAGES * 4104 / 0.9e5, rel=0.01)
    assert first.more_total_time_ms == pytest.approx(GIB_PAGES * 4104 / 1.1e5, rel=0.01)
    base = grid.cells[0].total_time_ms
    writes = next(one for one in grid.sensitivity if one.parameter == "writes")
    assert (writes.less_total_time_ms, writes.more_total_time_ms) == (base, base)
    assert not any(one.parameter == "private-rate" for one in grid.sensitivity)


def test_slow_firmware_is_what_a_private_guest_is_sensitive_to() -> None:
    grid = make_grid(guest(GIB_PAGES, GIB_PAGES, IDLE), BANDWIDTHS, LIMITS, Parameters())
    assert grid.sensitivity[0].parameter == "private-rate"


def test_what_would_not_converge_any_more_comes_first() -> None:
    capture = guest(GIB_PAGES, 0, [(10, 0, 9_500), (1000, 0, 9_500)])
    grid = make_grid(capture, [2.0**27], [300.0], Parameters())
    assert grid.sensitivity[0].less_total_time_ms is None


def test_where_no_cell_converges_nothing_is_sensitive() -> None:
    grid = make_grid(AMD_STORY, [1e9], [125.0, 250.0], Parameters())
    assert grid.sensitive_at is None
    assert grid.sensitivity == ()
