"""Each example runs, and prints what its text promises."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kvmenc.capture import save_capture
from tests.plan.guests import GIB_PAGES, guest

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

EXPECTED = {
    "two_bitmaps.py": [
        "dirty: 128 private, 0 shared; flipped: 0",
        # 16 flipped, of which 4 were written too: all 16 must be sent again.
        "dirty: 0 private, 16 shared; flipped: 16",
    ],
}

needs_distributed = pytest.mark.skipif(
    importlib.util.find_spec("distributed") is None, reason="dask.distributed is not installed"
)


#: Those that have a test module of their own.
APART = {"ci", "evacuate.py", "exporter.py", "probe_and_alert.sh"}


def test_every_example_is_tested_and_told_of() -> None:
    here = {path.name for path in EXAMPLES.iterdir()} - {"README.md", "__pycache__"}
    assert here == {*EXPECTED, *APART, "fleet.py", "walkthrough.py"}
    told = (EXAMPLES / "README.md").read_text()
    assert not [name for name in here if f"`{name}" not in told]


@pytest.mark.parametrize("name", EXPECTED)
def test_example(name: str) -> None:
    run = subprocess.run(
        [sys.executable, EXAMPLES / name], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines() == EXPECTED[name]


def test_the_walk_takes_every_step() -> None:
    run = subprocess.run(
        [sys.executable, EXAMPLES / "walkthrough.py"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert re.findall(r"^(\d)\. ", run.stdout, re.MULTILINE) == list("123456")
    wanted = [
        r"KVM says 3 for KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2",
        r"memslot 2: gfn 0x100, 16,211 pages",
        r"at 400 ms: dirty [1-9]\d* private, \d+ shared; \d+ flipped",
        r"ram: [1-9]\d* of 16,384 pages were written",
        r"firmware of 400 pages/s: does-not-converge; ",
        r"firmware of 20000 pages/s: converges in [0-9.]+ s; ",
        r"--private-rate \d+pps",
        r"10 Gbit/s: 30 ms converges, 300 ms converges",
    ]
    assert not [it for it in wanted if not re.search(it, run.stdout)]


def fleet(*args: str | Path) -> list[str]:
    """What the example prints; it must leave no process behind."""
    with subprocess.Popen(
        [sys.executable, EXAMPLES / "fleet.py", *args],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as run:  # fmt: skip
        out, complaints = run.communicate(timeout=100)
    assert (run.returncode, complaints) == (0, "")
    deadline = time.monotonic() + 10
    while left := alive(run.pid):
        assert time.monotonic() < deadline, left
        time.sleep(0.05)
    return out.splitlines()


def alive(session: int) -> list[str]:
    """The processes of a session, but for those that only wait to be buried."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue  # it has just ended
        state, _parent, _group, its_session = text.rpartition(")")[2].split()[:4]
        if int(its_session) == session and state not in "ZX":
            found.append(text)
    return found


@needs_distributed
def test_a_made_up_fleet_is_planned_alike_by_processes_and_by_dask() -> None:
    first, second, same, *totals = fleet("40")
    assert re.fullmatch(r"ProcessPoolExecutor +\d+ plans/s, 2 processes", first)
    assert re.fullmatch(r"ClientExecutor +\d+ plans/s, 2 processes", second)
    assert same == "Both say the same."
    assert re.fullmatch(r"\d+ of 40 guests converge: .* to send,", totals[0])
    assert re.fullmatch(r".* one after the other, longest pause .*s\.", totals[1])


@needs_distributed
def test_a_fleet_is_made_from_a_capture(tmp_path: Path) -> None:
    path = tmp_path / "idle.capture"
    save_capture(guest(GIB_PAGES, 0, [(100, 0, 0)], zero=0), path)
    lines = fleet(path, "4")
    assert lines[2] == "Both say the same."
    assert lines[3].startswith("4 of 4 guests converge: 4.0")
