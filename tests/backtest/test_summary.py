"""Scores over runs against counting by hand."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.backtest.result import PREDICTORS, Share
from kvmenc.backtest.scenarios import by_scenario
from kvmenc.backtest.summary import confidence, ratios, summarise
from tests.backtest.scores import scored, stated

if TYPE_CHECKING:
    from kvmenc.backtest.result import Confidence, RunScore, Summary


def ours(*runs: RunScore) -> Summary:
    return summarise(runs)[0]


def sure(*runs: RunScore) -> Confidence:
    return confidence(runs, by_scenario(runs))


@given(
    errors=st.lists(st.integers(-99, 400), min_size=1, max_size=30),
    offs=st.lists(st.integers(-5, 5), min_size=30, max_size=30),
)
def test_the_summary_is_what_counting_by_hand_gives(errors: list[int], offs: list[int]) -> None:
    runs = [
        scored({"total-time": (5000, 5000 + 50 * error), "dirty-sync-count": (100, 100 + off)})
        for error, off in zip(errors, offs, strict=False)
    ]
    for it in summarise(runs):
        sizes = sorted(abs(error) for error in errors)
        assert it.total_time
        assert it.total_time.runs == len(errors)
        assert it.total_time.median_percent == pytest.approx(statistics.median(sizes))
        enough = next(x for x in sizes if sum(y <= x for y in sizes) >= 0.9 * len(sizes))
        assert it.total_time.p90_percent == pytest.approx(enough)
        assert it.total_time_within == Share(sum(size <= 3 for size in sizes), len(sizes))
        assert it.syncs_within_1 == sum(abs(off) <= 1 for off in offs[: len(errors)])
        assert it.downtime is it.after_bulk is it.transferred is None


def test_a_short_migration_may_be_off_by_100_ms() -> None:
    found = ours(scored({"total-time": (1000, 1099)}), scored({"total-time": (1000, 1101)}))
    assert found.total_time_within == Share(1, 2)
    assert found.total_time
    assert found.total_time.p90_percent == pytest.approx(10.1)


def test_the_pause_is_scored_over_tcp_only() -> None:
    pipe = scored({"downtime": (2, 200)}, transport="exec")
    unknown = scored({"downtime": (2, 200)})
    assert ours(pipe, unknown).downtime is None
    assert ours(pipe, unknown).downtime_within == Share(0, 0)
    network = [
        scored({"downtime": (300, value)}, transport="tcp") for value in (310, 359, 361, 230)
    ]
    short = [scored({"downtime": (10, value)}, transport="tcp") for value in (29, 31)]
    found = ours(pipe, *network, *short)
    assert found.downtime
    assert found.downtime.runs == 6
    assert found.downtime_within == Share(3, 6), "310 and 359 of 300, 29 of 10"
    assert found.downtime_median_ms == statistics.median([10, 59, 61, 70, 19, 21])


def test_syncs_count_where_it_converged() -> None:
    given_up = scored({"dirty-sync-count": (50, 80)}, converged=False)
    assert (ours(given_up).syncs, ours(given_up).syncs_within_1) == (0, 0)
    runs = [given_up, *(scored({"dirty-sync-count": (12, value)}) for value in (11, 13, 14))]
    assert (ours(*runs).syncs, ours(*runs).syncs_within_1) == (3, 2)


def test_a_wrong_verdict_on_a_knife_edge_is_no_mistake_but_anywhere_else_it_is() -> None:
    wrong = scored({}, converged=False)
    chance = scored({}, converged=False, interval=stated(0.5))
    right = scored({})
    found = ours(wrong, chance, right)
    assert (found.runs, found.verdicts_right, found.verdicts_wrong_outside_band) == (3, 1, 1)


def test_runs_that_could_not_be_predicted_are_in_no_summary() -> None:
    assert summarise([scored({}, converges={})]) == ()
    assert ratios([scored({"total-time": (1, 2)}, converges={})]) == ()


@pytest.mark.parametrize(
    ("probability", "inside"),
    [(0, False), (0.05, False), (0.051, True), (0.5, True), (0.949, True), (0.95, False)],
)
def test_the_band_is_open_at_both_ends(probability: float, inside: bool) -> None:
    found = sure(scored({}, interval=stated(probability)))
    assert (found.scenarios_in_band, found.runs_in_band) == (Share(inside, 1), int(inside))


def test_brier_in_the_band_and_over_all_by_hand() -> None:
    def run(probability: float, converged: bool, scenario: str) -> RunScore:
        return scored({}, converged=converged, interval=stated(probability), scenario=scenario)

    found = sure(
        run(1.0, True, "a"), run(1.0, False, "a"), run(0.7, True, "b"), run(0.7, False, "b"),
        run(0.2, False, "c"), scored({}, scenario="silent"),
    )  # fmt: skip
    assert found.scenarios_in_band == Share(2, 4)
    assert (found.runs_in_band, found.runs_stated) == (3, 5)
    assert found.brier_in_band == pytest.approx((0.09 + 0.49 + 0.04) / 3)
    assert found.brier == pytest.approx((0 + 1 + 0.09 + 0.49 + 0.04) / 5)
    assert sure().brier is None


def test_an_interval_is_of_the_whole_of_qemus_total_time() -> None:
    """Setting up takes 50 ms of each; 1000 and 1100 ms are still in the interval."""
    runs = [
        scored({}, interval=stated(1, 1000, 1100), lasted_ms=lasted, setup_ms=50.0)
        for lasted in (949, 950, 1000, 1050, 1051)
    ]
    given_up = scored({}, interval=stated(0.5, 1, 2), lasted_ms=1000.0, converged=False)
    endless = scored({}, interval=stated(0), lasted_ms=1000.0)
    silent = scored({}, lasted_ms=1000.0)
    found = sure(*runs, given_up, endless, silent)
    assert found.interval_holds == Share(3, 5)
    assert found.interval_width_percent == pytest.approx(100 / 1050 * 100)


@given(
    st.lists(
        st.tuples(st.integers(1, 300), st.integers(1, 300), st.booleans()), min_size=1, max_size=20
    )
)
def test_errors_stand_beside_a_rivals_where_both_have_one(
    errors: list[tuple[int, int, bool]],
) -> None:
    runs = [
        scored(
            {"total-time": (1000, 1000 + 10 * mine if known else None)},
            {"total-time": 1000 + 10 * rivals},
        )
        for mine, rivals, known in errors
    ]
    both = [(mine, rivals) for mine, rivals, known in errors if known]
    found = ratios(runs)
    assert len(found) == (2 if both else 0)
    for it in found:
        mine = statistics.median(one for one, _ in both)
        theirs = statistics.median(other for _, other in both)
        assert (it.field, it.runs) == ("total-time", len(both))
        assert it.kvmenc_percent == pytest.approx(mine)
        assert it.rival_percent == pytest.approx(theirs)
        assert it.ratio == pytest.approx(mine / theirs)


def test_over_a_rival_without_error_there_is_no_ratio() -> None:
    [first, second] = ratios([scored({"transferred": (10, 11)}, {"transferred": 10})])
    assert (first.rival, second.rival) == PREDICTORS[1:]
    assert first.ratio is second.ratio is None
