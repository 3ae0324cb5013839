from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from kvmenc.backtest import backtest, builtin_backtest, load_run
from kvmenc.backtest.result import PREDICTORS, Backtest, Predicted
from kvmenc.backtest.score import given_up_ms
from kvmenc.plan import Parameters, interval_of, make_plan, profile_for
from tests.backtest.runs import run_file

if TYPE_CHECKING:
    from pathlib import Path


def write(folder: Path, fields: dict[str, Any]) -> Path:
    path = folder / "run.json"
    path.write_text(json.dumps(fields))
    return path


def backtest_of(folder: Path, *files: dict[str, Any]) -> Backtest:
    return backtest([load_run(write(folder, fields)) for fields in files])


def test_each_figure_stands_beside_each_prediction_with_its_error(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, run_file()))
    assert run.capture
    plan = make_plan(run.capture, Parameters(max_bandwidth_bytes_per_s=1e8))
    assert plan.total_time_ms
    result = backtest([run])
    assert result.grid is None
    [score] = result.runs
    assert score.converged
    assert score.converges == dict.fromkeys(PREDICTORS, True)
    fields = {it.field: it for it in score.fields}
    total, sending_ms = fields["total-time"], sum(it.ms for it in plan.rounds)
    assert total.actual == 5997, "setting up is taken off both"
    assert total.predicted["kvmenc"].value == pytest.approx(sending_ms)
    expected = (sending_ms - 5997) / 59.97
    assert total.predicted["kvmenc"].error_percent == pytest.approx(expected)
    assert fields["normal"].predicted["rule2023"] == Predicted(None, None)
    assert "remaining" not in fields
    assert "bulk_ms" not in fields
    assert (score.lasted_ms, score.setup_ms, score.scenario) == (5997, 3, "a run")


def test_a_run_given_up_is_predicted_until_then(tmp_path: Path) -> None:
    """Ten times the bandwidth's worth is dirtied: nothing is ever near the threshold."""
    parameters = {"max_bandwidth_bytes_per_s": 1e6, "downtime_limit_ms": 10}
    figures = {"status": "active", "total-time": 60_000, "ram": {"remaining": 1, "normal": 5}}
    files = run_file(parameters=parameters, query_migrate=figures)
    [score] = backtest_of(tmp_path, files).runs
    assert score.converges == dict.fromkeys(PREDICTORS, False)
    fields = {it.field: it.predicted["kvmenc"].value for it in score.fields}
    assert fields.keys() == {"normal", "remaining"}
    assert fields["normal"] == pytest.approx(1e6 * 60 / 4104, rel=0.01)


def test_a_run_that_ended_before_it_sent_a_page_is_scored(tmp_path: Path) -> None:
    """As a rehearsal whose line was cut at once."""
    figures = {"status": "active", "total-time": 12, "setup-time": 12, "ram": {"normal": 0}}
    [score] = backtest_of(tmp_path, run_file(query_migrate=figures)).runs
    assert score.converges == dict.fromkeys(PREDICTORS, False)
    assert {it.field for it in score.fields} == {"normal"}


def test_what_comes_after_the_second_sync_is_compared(tmp_path: Path) -> None:
    [score] = backtest_of(tmp_path, run_file(bulk_ms=5500)).runs
    fields = {it.field: it for it in score.fields}
    assert (fields["bulk_ms"].actual, fields["after_bulk_ms"].actual) == (5500, 497)
    for name in PREDICTORS:
        parts = (fields[it].predicted[name].value for it in ("bulk_ms", "after_bulk_ms"))
        total = fields["total-time"].predicted[name].value
        assert sum(it or 0 for it in parts) == pytest.approx(total)


def test_of_one_scenario_all_are_asked_what_happens_until_one_was_given_up(tmp_path: Path) -> None:
    given_up = {"status": "active", "total-time": 3000, "setup-time": 100}
    files = [
        run_file(name="a", scenario="s", query_migrate=given_up),
        run_file(name="b", scenario="s", query_migrate=given_up | {"total-time": 2000}),
        run_file(name="c", scenario="s"),
        run_file(name="d", scenario="t"),
    ]
    runs = [load_run(write(tmp_path, it)) for it in files]
    assert given_up_ms(runs) == {"s": 5997}
    assert given_up_ms(runs[:2]) == {"s": 2900}
    assert given_up_ms(runs[2:]) == {}
    [whole_ms] = backtest(runs[3:]).runs[0].fields[:1]
    assert whole_ms.predicted["kvmenc"].value
    late = given_up | {"total-time": 100 + whole_ms.predicted["kvmenc"].value / 2}
    quick = {"status": "completed", "total-time": 500}
    scores = backtest_of(
        tmp_path,
        run_file(name="a", scenario="s", query_migrate=late),
        run_file(name="b", scenario="s", query_migrate=quick),
    ).runs
    assert [(it.converged, it.converges["kvmenc"]) for it in scores] == [
        (False, False),
        (True, False),
    ]


def test_the_rules_are_those_of_the_qemu_that_ran(tmp_path: Path) -> None:
    files = [run_file(qemu=version) for version in ("7.2.22", "7.2.1", "11.0.0")]
    result = backtest_of(tmp_path, *files, run_file())
    used = {it.name: it for it in result.profiles}
    assert [run.profile for run in result.runs] == [
        profile_for(version).name for version in ("7.2.22", "7.2.1", "11.0.0", None)
    ]
    assert used["qemu-7.2"].runs == 2
    assert result.profile == ", ".join(used)
    for it in (profile_for(version) for version in ("7.2.22", "11.0.0", None)):
        assert used[it.name].proven == bool(it.proven)


def test_a_run_carries_what_its_plan_states_of_its_certainty(tmp_path: Path) -> None:
    [score] = backtest_of(tmp_path, run_file()).runs
    run = load_run(write(tmp_path, run_file()))
    assert run.capture
    assert run.parameters
    assert score.interval == interval_of(run.capture, run.parameters, profile_for(None))


def test_with_the_wrong_verdict_no_figure_is_compared(tmp_path: Path) -> None:
    figures = {"status": "active", "total-time": 60_000, "ram": {"transferred": 5}}
    result = backtest_of(tmp_path, run_file(query_migrate=figures))
    [score] = result.runs
    assert score.converges == dict.fromkeys(PREDICTORS, True)
    assert not score.converged
    assert {it.value for it in score.fields[0].predicted.values()} == {None}
    assert [(it.runs, it.verdicts_right, it.transferred) for it in result.summary] == [
        (1, 0, None)
    ] * 3


def test_a_run_that_cannot_be_predicted_is_in_no_summary(tmp_path: Path) -> None:
    unknown = run_file(capture=None, missing=["the dirty rate"])
    result = backtest_of(tmp_path, unknown, run_file())
    assert result.runs[0].converges == {}
    assert {it.predicted == {} for it in result.runs[0].fields} == {True}
    assert {it.runs for it in result.summary} == {1}
    assert backtest_of(tmp_path, unknown).summary == ()


def test_the_published_runs_are_predicted_the_same_each_time_and_finitely() -> None:
    """Not that they are predicted well: where the text gives one dirty rate, they are not."""
    first, second = builtin_backtest(), builtin_backtest()
    assert first == second
    predicted = [run for run in first.runs if run.converges]
    assert len(predicted) == 6
    for run in predicted:
        assert run.converges.keys() == set(PREDICTORS)
        for field in run.fields:
            for it in field.predicted.values():
                assert it.value is None or math.isfinite(it.value)
    assert {it.runs for it in first.summary} == {6}
