"""A plan beside what QEMU said."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.plan import Parameters, make_plan
from kvmenc.plan.compare import (
    END_FIELDS,
    FIELDS,
    Answer,
    FieldPair,
    RamAnswer,
    compare,
    happened,
    planned,
)
from tests.plan.guests import GIB_PAGES, guest

CAPTURE = guest(GIB_PAGES, 0, [(100, 0, 500), (1000, 0, 4000), (2000, 0, 6000)], zero=2**17)
FAST = Parameters(max_bandwidth_bytes_per_s=1e8)
#: Ten times of what it sends is dirtied.
SLOW = Parameters(max_bandwidth_bytes_per_s=1e6, downtime_limit_ms=10, time_limit_ms=60_000)


def test_a_plan_that_converges_says_all_but_what_remains() -> None:
    plan = make_plan(CAPTURE, FAST)
    values = planned(plan)
    assert values.keys() == set(FIELDS) - {"remaining"}
    assert plan.total_time_ms
    assert values["total-time"] == pytest.approx(
        plan.total_time_ms - plan.query_migrate.setup_time, abs=0.5
    )
    assert values["bulk_ms"] == plan.rounds[0].ms
    assert values["bulk_ms"] + values["after_bulk_ms"] == pytest.approx(values["total-time"])
    assert values["transferred"] == plan.query_migrate.ram.transferred


def test_a_plan_that_is_given_up_says_what_remains_at_the_time_limit() -> None:
    values = planned(make_plan(CAPTURE, SLOW))
    assert values.keys() == set(FIELDS) - {"total-time", "after_bulk_ms", "downtime"}
    assert values["normal"] == pytest.approx(1e6 * 60 / 4104, rel=0.01)


def test_a_plan_without_hope_says_nothing_of_when_one_loses_it() -> None:
    endless = Parameters(max_bandwidth_bytes_per_s=1e6, downtime_limit_ms=10)
    assert planned(make_plan(CAPTURE, endless)) == {}


def test_setting_up_is_taken_off_and_only_what_is_known_is_there() -> None:
    answer = Answer("completed", total_time=5000, setup_time=20, ram=RamAnswer(normal=7))
    assert happened(answer) == {"total-time": 4980, "normal": 7}
    assert happened(answer, bulk_ms=4000) == {
        "total-time": 4980,
        "bulk_ms": 4000,
        "after_bulk_ms": 980,
        "normal": 7,
    }


def test_when_it_was_given_up_is_no_result_but_what_remained_is() -> None:
    ram = RamAnswer(remaining=5, dirty_sync_count=3)
    assert happened(Answer("active", total_time=5000, ram=ram), bulk_ms=100) == {
        "bulk_ms": 100,
        "dirty-sync-count": 3,
        "remaining": 5,
    }
    assert "remaining" not in happened(Answer("completed", ram=ram))


def test_a_pair_for_each_field_in_order() -> None:
    pairs = compare({"downtime": 3.0}, {"total-time": 4.0}, END_FIELDS)
    assert tuple(it.field for it in pairs) == END_FIELDS
    assert pairs[:3] == (
        FieldPair("total-time", None, 4.0),
        FieldPair("downtime", 3.0, None),
        FieldPair("transferred", None, None),
    )
    assert {it.error_percent for it in pairs} == {None}


@given(predicted=st.floats(0, 1e9), actual=st.floats(1e-3, 1e9))
def test_an_error_added_to_what_happened_is_the_prediction(predicted: float, actual: float) -> None:
    error = FieldPair("downtime", predicted, actual).error_percent
    assert error is not None
    assert actual * (1 + error / 100) == pytest.approx(predicted, rel=1e-9, abs=1e-6)


def test_of_nothing_there_is_no_error() -> None:
    assert FieldPair("downtime", 3.0, 0.0).error_percent is None
