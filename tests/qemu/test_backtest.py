"""Some of `make backtest`: plans made of captures, and the migrations that came after."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvmenc.backtest import backtest, load_run
from tests.qemu.backtest import record
from tests.qemu.scenarios import SCENARIOS

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.qemu

NAMES = {"hot set below the threshold", "hot and cold"}


def test_real_migrations_are_as_they_were_planned(tmp_path: Path) -> None:
    scenarios = [it for it in SCENARIOS if it.name in NAMES]
    runs = [load_run(file) for file in record(scenarios, tmp_path, repeats=1)]
    result = backtest(runs)
    assert len(result.runs) == len(NAMES)
    ours = result.summary[0]
    assert ours.predictor == "kvmenc"
    assert ours.verdicts_right == len(NAMES)
    assert ours.total_time is not None
    assert ours.total_time.median_percent < 10
