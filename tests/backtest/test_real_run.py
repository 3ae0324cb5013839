"""Three migrations of a real QEMU, kept as run files; how they were made is in their README."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmenc.backtest import Backtest, backtest, load_run
from kvmenc.plan.compare import END_FIELDS

FOLDER = Path(__file__).parents[1] / "data" / "backtest"


@pytest.fixture(scope="module")
def result() -> Backtest:
    return backtest([load_run(path) for path in sorted(FOLDER.glob("writer-*.json"))])


def test_a_file_carries_all_that_is_compared(result: Backtest) -> None:
    assert len(result.runs) == 3
    for run in result.runs:
        fields = {it.field: it.predicted["kvmenc"] for it in run.fields}
        assert fields.keys() == set(END_FIELDS)
        assert all(it.error_percent is not None for it in fields.values())


def test_this_quiet_guest_with_a_steady_pace_is_predicted(result: Backtest) -> None:
    ours = result.summary[0]
    assert ours.predictor == "kvmenc"
    assert ours.verdicts_right == ours.syncs_within_1 == 3
    for spread in (ours.total_time, ours.transferred):
        assert spread
        assert spread.p90_percent < 5
