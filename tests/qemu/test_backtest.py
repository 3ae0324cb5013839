"""Some of `make backtest`: plans made of captures, and the migrations that came after."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import pytest

from kvmenc.backtest import backtest, load_run
from tests.qemu.audit import rows
from tests.qemu.backtest import CAPTURE_S, record
from tests.qemu.scenarios import SCENARIOS

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.backtest import Run

pytestmark = [pytest.mark.qemu, pytest.mark.alone]


def recorded(folder: Path, name: str, capture_s: float = CAPTURE_S) -> Run:
    """One run of a scenario."""
    scenario = next(it for it in SCENARIOS if it.name == name)
    [file] = record([scenario], folder, repeats=1, tries=1, capture_s=capture_s)
    return load_run(file)


def test_a_real_migration_is_as_it_was_planned(tmp_path: Path) -> None:
    """One that the bulk does not decide; `make backtest` does all. What was recorded is kept."""
    name = "hot and cold, short pause"
    result = backtest([recorded(tmp_path, name)])
    ours = result.summary[0]
    assert ours.predictor == "kvmenc"
    assert ours.verdicts_right == 1
    assert ours.total_time is not None
    assert ours.total_time.median_percent < 10
    again = [it for it in SCENARIOS if it.name == name]
    assert not list(record(again, tmp_path, repeats=1, fresh=False))
    [row] = rows(tmp_path)
    assert row.scenario == name
    assert row.completed == row.runs == 1
    assert row.after_bulk > 0.3


def test_a_migration_over_a_shaped_cable_goes_at_its_pace(tmp_path: Path) -> None:
    """Into another QEMU; whatever the machine does besides, it is not faster.

    Nothing is asked of the plan, so the capture may be short.
    """
    if os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")):
        pytest.skip("network namespaces need root, and iproute2")
    run = recorded(tmp_path, "TCP of 50 MB/s", capture_s=1)
    assert run.parameters is not None
    assert run.parameters.link_bytes_per_s == pytest.approx(47.8e6, rel=0.01)
    assert 1e5 < run.parameters.send_buffer_bytes < 1e7
    assert run.figures.total_time is not None
    assert run.figures.ram.transferred is not None
    pace = run.figures.ram.transferred / run.figures.total_time * 1e3
    assert 30e6 < pace < 52e6
