"""Repeats of a scenario together, against counting by hand."""

from __future__ import annotations

import pytest

from kvmenc.backtest.result import PREDICTORS, Predicted, Share
from kvmenc.backtest.scenarios import audit, by_scenario
from tests.backtest.scores import scored, stated


def test_repeats_are_one_line() -> None:
    values = {"total-time": ((9000, 10_000), (10_000, 10_000), (11_000, 10_000))}
    runs = [scored({"total-time": it}, lasted_ms=it[0]) for it in values["total-time"]]
    [one] = by_scenario(runs)
    assert (one.name, one.runs, one.converged) == ("a scenario", 3, 3)
    assert one.converges == dict.fromkeys(PREDICTORS, 3)
    assert one.spread_percent == pytest.approx(20)
    assert one.shortest_ms == 9000
    assert one.probability_converges is one.after_bulk_percent is None
    [total] = one.fields
    assert (total.field, total.actual) == ("total-time", 10_000)
    assert total.predicted["kvmenc"] == Predicted(10_000, 0)


def test_scenarios_keep_their_order_and_what_is_not_predicted_is_none() -> None:
    runs = [scored({}, scenario=name) for name in "bab"]
    runs.append(scored({}, scenario="unknown", converges={}))
    assert [(it.name, it.runs) for it in by_scenario(runs)] == [("b", 2), ("a", 1)]


def test_a_scenario_that_converges_at_times_means_over_those_times() -> None:
    runs = [
        scored({"total-time": (10_000, None), "transferred": (50, None)}, lasted_ms=10_000.0,
               bulk_ms=2500.0, interval=stated(0.4)),
        scored({"total-time": (20_000, 22_000), "transferred": (150, 100)}, lasted_ms=20_000.0,
               bulk_ms=2000.0, interval=stated(0.6)),
        scored({"transferred": (400, 500)}, lasted_ms=30_000.0, converged=False),
    ]  # fmt: skip
    [one] = by_scenario(runs)
    assert (one.runs, one.converged, one.knife_edge) == (3, 2, True)
    assert one.probability_converges == pytest.approx(0.5)
    assert one.after_bulk_percent == pytest.approx((75 + 90) / 2)
    fields = {it.field: it for it in one.fields}
    assert fields["total-time"].actual == 15_000
    assert fields["total-time"].predicted["kvmenc"].value == 22_000
    assert fields["transferred"].actual == pytest.approx(200)
    assert fields["transferred"].predicted["kvmenc"].error_percent == pytest.approx(50)


def test_the_audit_counts_scenarios() -> None:
    runs = [
        scored({"dirty-sync-count": (syncs, None)}, scenario=name, lasted_ms=lasted, bulk_ms=bulk)
        for name, syncs, lasted, bulk in (
            ("even", 4, 8000.0, 4000.0),
            ("late", 10, 9000.0, 4000.0),
            ("late", 12, 6000.0, 1000.0),
            ("nearly", 9, 7000.0, None),
            ("nearly", 10, 7500.0, None),
        )
    ]
    found = audit(by_scenario(runs))
    assert (found.scenarios, found.least_runs, found.shortest_ms) == (3, 1, 6000)
    assert found.mostly_after_bulk == Share(1, 2), "exactly half is not over half"
    assert found.ten_syncs == Share(1, 3), "9.5 are not ten"
    assert found.spread_percent is None
    empty = audit(())
    assert (empty.scenarios, empty.least_runs, empty.shortest_ms) == (0, None, None)


def test_the_spread_over_scenarios_is_the_median_of_theirs() -> None:
    runs = [
        scored({"total-time": (ms, ms)}, scenario=name)
        for name, times in (("a", (100, 100)), ("b", (95, 105)), ("c", (50, 150)), ("d", (7,)))
        for ms in times
    ]
    assert audit(by_scenario(runs)).spread_percent == pytest.approx(10)
