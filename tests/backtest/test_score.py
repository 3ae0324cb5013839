from __future__ import annotations

import json
import math
import statistics
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.backtest import backtest, builtin_backtest, load_run
from kvmenc.backtest.result import PREDICTORS, Backtest, FieldScore, Predicted, RunScore
from kvmenc.backtest.score import summarise
from kvmenc.plan import Parameters, make_plan
from tests.backtest.runs import run_file

if TYPE_CHECKING:
    from pathlib import Path


def backtest_of(folder: Path, *files: dict[str, Any]) -> Backtest:
    paths = [folder / f"{i}.json" for i in range(len(files))]
    for path, fields in zip(paths, files, strict=True):
        path.write_text(json.dumps(fields))
    return backtest([load_run(path) for path in paths])


def test_each_figure_stands_beside_each_prediction_with_its_error(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run_file()))
    run = load_run(path)
    assert run.capture
    plan = make_plan(run.capture, Parameters(max_bandwidth_bytes_per_s=1e8))
    assert plan.total_time_ms
    result = backtest([run])
    assert result.grid is None
    [score] = result.runs
    assert score.converged
    assert score.converges == dict.fromkeys(PREDICTORS, True)
    fields = {it.field: it for it in score.fields}
    total = fields["total_time_ms"]
    assert total.actual == 6000
    assert total.predicted["kvmenc"].value == plan.total_time_ms
    expected = (plan.total_time_ms - 6000) / 60
    assert total.predicted["kvmenc"].error_percent == pytest.approx(expected)
    assert fields["normal_pages"].predicted["rule2023"] == Predicted(None, None)
    assert "remaining_bytes" not in fields


def test_a_run_given_up_is_predicted_until_then(tmp_path: Path) -> None:
    """Ten times the bandwidth's worth is dirtied: nothing is ever near the threshold."""
    parameters = {"max_bandwidth_bytes_per_s": 1e6, "downtime_limit_ms": 10}
    figures = {"status": "active", "total-time": 60_000, "ram": {"remaining": 1, "normal": 5}}
    files = run_file(parameters=parameters, query_migrate=figures)
    [score] = backtest_of(tmp_path, files).runs
    assert score.converges == dict.fromkeys(PREDICTORS, False)
    fields = {it.field: it.predicted["kvmenc"].value for it in score.fields}
    assert fields.keys() == {"normal_pages", "remaining_bytes"}
    assert fields["normal_pages"] == pytest.approx(1e6 * 60 / 4104, rel=0.01)


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


def score_of(error_percent: float, off: int) -> RunScore:
    def field(name: str, actual: float, value: float) -> FieldScore:
        error = (value - actual) / actual * 100
        return FieldScore(name, actual, {it: Predicted(value, error) for it in PREDICTORS})  # type: ignore[arg-type]

    fields = (
        field("total_time_ms", 1000, 1000 + 10 * error_percent),
        field("dirty_sync_count", 100, 100 + off),
    )
    return RunScore(
        name="a", source="b", converged=True, converges=dict.fromkeys(PREDICTORS, True),
        fields=fields, assumptions=(), missing=(), notes=(),
    )  # fmt: skip


@given(
    errors=st.lists(st.integers(-99, 400), min_size=1, max_size=30),
    offs=st.lists(st.integers(-5, 5), min_size=30, max_size=30),
)
def test_the_summary_is_what_counting_by_hand_gives(errors: list[int], offs: list[int]) -> None:
    runs = [score_of(error, off) for error, off in zip(errors, offs, strict=False)]
    for it in summarise(runs):
        sizes = sorted(abs(error) for error in errors)
        assert it.total_time
        assert it.total_time.runs == len(errors)
        assert it.total_time.median_percent == pytest.approx(statistics.median(sizes))
        enough = next(x for x in sizes if sum(y <= x for y in sizes) >= 0.9 * len(sizes))
        assert it.total_time.p90_percent == pytest.approx(enough)
        assert it.syncs_within_1 == sum(abs(off) <= 1 for off in offs[: len(errors)])
        assert it.downtime is None


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
