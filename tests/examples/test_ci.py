"""``examples/ci``: the workflow's commands are run, all but those that install."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.pty import BIN
from tests.examples.test_examples import EXAMPLES
from tests.support import need

if TYPE_CHECKING:
    from pathlib import Path

yaml = pytest.importorskip("yaml")

CI = EXAMPLES / "ci"


def need_fakekvm_run() -> None:
    tried = subprocess.run(
        [BIN / "fakekvm", "run", "true"], capture_output=True, text=True, check=False
    )
    need(tried.returncode == 0, tried.stderr.strip(), "KVMENC_REQUIRE_KVM")


def steps() -> list[dict[str, Any]]:
    workflow = yaml.safe_load((CI / "workflow.yml").read_text())
    # YAML 1.1 takes the key `on` for true.
    assert workflow.keys() == {"name", True, "jobs"}
    found: list[dict[str, Any]] = workflow["jobs"]["fake-kvm"]["steps"]
    return [step for step in found if "run" in step and "pip install" not in step["run"]]


@pytest.mark.parametrize("step", steps(), ids=lambda step: step["name"])
def test_a_step_of_the_workflow(step: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "test_vmm.py").symlink_to(CI / "test_vmm.py")
    if "fakekvm run" in step["run"]:
        need_fakekvm_run()
    environment = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    run = subprocess.run(
        ["sh", "-ec", step["run"]],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    if "pytest" in step["run"]:  # which found the plugin by itself, and skips none
        assert re.search(r"^5 passed in ", run.stdout, re.MULTILINE)
