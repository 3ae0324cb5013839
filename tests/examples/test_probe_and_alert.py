"""``examples/probe_and_alert.sh``: which exit status raises which alarm."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.cli.pty import BIN
from tests.examples.test_ci import need_fakekvm_run
from tests.examples.test_examples import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

SCRIPT = str(EXAMPLES / "probe_and_alert.sh")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ALERT", "cat")


def probe(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT, *args], capture_output=True, text=True, check=False)


def test_a_good_host_is_no_news() -> None:
    run = probe("--backend", "fake")
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_a_recording_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    run = probe("--backend", f"replay:{tmp_path}/none")
    assert run.returncode == 4
    assert run.stdout.count("\n") == 1
    assert "the input is not good (exit status 4). kvmenc: " in run.stdout


def test_ctrl_c_is_no_alarm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for kvmenc here ends as that does."""
    stand_in = tmp_path / "kvmenc"
    stand_in.write_text("#!/bin/sh\nexit 130\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    run = probe()
    assert (run.returncode, run.stdout) == (130, "")


def test_a_host_without_kvm_raises_the_alarm() -> None:
    """The fake plays it, for a shell script as for any program."""
    need_fakekvm_run()
    run = subprocess.run(
        ["fakekvm", "run", "--host", "no-kvm", SCRIPT], capture_output=True, text=True, check=False
    )
    assert run.returncode == 3
    assert "this host has no KVM" in run.stdout


def test_the_alarm_names_the_checks_that_failed() -> None:
    """Under `fakekvm run` no code of a guest runs, so no guest writes what it should."""
    need_fakekvm_run()
    run = subprocess.run(["fakekvm", "run", SCRIPT], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stdout.count("\n") == 1
    assert "the self-test failed (exit status 1). dirty log: the guest did not " in run.stdout
    assert ";dirty ring: the guest did not " in run.stdout
