"""``kvmenc demo``: the main job, on the fake everywhere and on /dev/kvm where it opens."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from kvmenc.capture import load_capture
from tests.schemas.validator import faults
from tests.support import need_kvm

if TYPE_CHECKING:
    from pathlib import Path

BACKENDS = ["fake", pytest.param("local", marks=pytest.mark.kvm)]


def kvmenc(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from kvmenc.cli import main; main()", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture(params=BACKENDS, scope="module")
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "local":
        need_kvm()
    return str(request.param)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "demo.capture"


@pytest.fixture(scope="module")
def demo(backend: str, kept: Path) -> Any:
    run = kvmenc("demo", "--backend", backend, "--json", "-o", str(kept))
    assert (run.returncode, run.stderr) == (0, "")
    return json.loads(run.stdout)


def test_json_holds_what_was_real_the_syncs_and_the_plan(backend: str, demo: Any) -> None:
    assert demo["schema"] == "kvmenc.demo/1"
    assert not faults(demo)
    real = {part["name"]: part["real"] for part in demo["parts"]}
    assert real["guest"] == real["dirty log"] == (backend == "local")
    assert real["private/shared"] is False
    slots = demo["capture"]["slots"]
    assert len({slot["block"] for slot in slots}) == 3
    assert any(slot["block_page"] % 64 for slot in slots)


def test_the_capture_is_what_the_scratch_program_does(demo: Any) -> None:
    """Its hot set, cold sweep and conversions are known; so are the pages it shares."""
    ram, bios, dimm = demo["capture"]["blocks"]
    assert (bios["private_pages"], bios["unlogged_pages"]) == (0, 32)
    assert dimm["private_pages"] == dimm["npages"] == 8165
    # 4800 bounce pages are shared, and up to 256 converted ones; of the bounce pages 100 are used.
    assert 4800 <= ram["npages"] - ram["private_pages"] <= 4800 + 256
    assert 4700 <= ram["zero_pages"] <= 4700 + 256
    last = demo["capture"]["curve"][-1]
    assert 2400 <= last["private_pages"] + last["shared_pages"] <= 2048 + 500 + 256
    assert sum(sample["flipped_pages"] for sample in demo["capture"]["samples"]) > 0


def test_a_kept_capture_gives_the_same_plan_again(demo: Any, kept: Path) -> None:
    assert load_capture(kept).blocks[0].name == "ram"
    plan = json.loads(kvmenc("plan", str(kept), "--json").stdout)
    assert plan["verdict"] == demo["plan"]["verdict"] == "does-not-converge"
    assert plan["rounds"] == demo["plan"]["rounds"]


def test_the_text_says_which_parts_were_real_and_fits_80_columns(backend: str) -> None:
    run = kvmenc("demo", "--backend", backend)
    assert (run.returncode, run.stderr) == (0, "")
    words = "real" if backend == "local" else "fake"
    assert f"KVM             {words}" in run.stdout
    assert "private/shared  fake" in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 80
    assert "\x1b" not in run.stdout


def test_a_folder_that_is_not_there_is_told_before_the_watching_starts(tmp_path: Path) -> None:
    start = time.monotonic()
    run = kvmenc("demo", "--backend", "fake", "-o", str(tmp_path / "no-such" / "demo.capture"))
    assert time.monotonic() - start < 3
    assert (run.returncode, run.stdout) == (4, "")
    assert run.stderr.startswith("kvmenc: ")
    assert "there is no folder" in run.stderr
    assert run.stderr.count("\n") == 1


def test_ctrl_c_ends_it_at_once_with_130_and_nothing_on_stdout(backend: str) -> None:
    command = [sys.executable, "-c", "from kvmenc.cli import main; main()"]
    run = subprocess.Popen(
        [*command, "demo", "--backend", backend], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        time.sleep(2)  # past its imports, in the midst of watching
        run.send_signal(signal.SIGINT)
        out, err = run.communicate(timeout=10)
    finally:
        run.kill()
    assert run.returncode == 130
    assert b"Traceback" not in err
    assert out == b""
