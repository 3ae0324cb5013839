"""``examples/evacuate.py``: lanes, order, and who stays."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kvmenc.capture import save_capture
from kvmenc.plan.described import Described
from tests.examples.test_examples import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path


def evacuate(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, EXAMPLES / "evacuate.py", *args],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three guests that write nothing, of 1, 2 and 3 GiB."""
    paths = []
    for gib in (1, 2, 3):
        path = tmp_path_factory.mktemp("host") / f"guest{gib}.capture"
        save_capture(Described(memory_bytes=gib * 2**30).capture(), path)
        paths.append(path)
    return paths


def test_idle_guests_take_as_long_as_their_memory_whatever_the_lanes(host: list[Path]) -> None:
    run = evacuate(*host, "--link", "8Gbit")
    assert (run.returncode, run.stderr) == (0, "")
    choices = [line.split() for line in run.stdout.splitlines()[1:4]]
    assert [(line[0], line[1], line[2]) for line in choices] == [
        ("1", "3", "0"), ("2", "3", "0"), ("3", "3", "0"),
    ]  # fmt: skip
    # 6 GiB at 1 GB/s one after the other; of three at once the largest takes 3 GiB at a third.
    assert float(choices[0][3]) == pytest.approx(6 * 2**30 / 1e9, rel=0.05)
    assert float(choices[2][3]) == pytest.approx(9 * 2**30 / 1e9, rel=0.05)
    # The longest goes first.
    order = run.stdout.partition("starts at")[2].splitlines()[1:]
    assert order[0].split()[0] == "now"
    assert order[0].split()[-1] == "guest3"
    assert {line.split()[-1] for line in order} == {"guest1", "guest2", "guest3"}


def test_who_does_not_converge_stays_and_is_told_why(host: list[Path], tmp_path: Path) -> None:
    busy = Described(memory_bytes=2**31, dirty_bytes_per_s=5e9, working_set_bytes=2**30)
    save_capture(busy.capture(), tmp_path / "busy.capture")
    run = evacuate(*host, tmp_path / "busy.capture")
    assert run.returncode == 1
    assert run.stdout.count(" stays.") == 1
    told = run.stdout.partition("busy stays.\n")[2].splitlines()
    assert told[0] == "What would make it converge, each alone:"
    assert any("--downtime-limit" in line for line in told)


def test_guests_whose_files_have_one_name_are_two(host: list[Path], tmp_path: Path) -> None:
    other = tmp_path / host[0].name
    save_capture(Described(memory_bytes=2**31).capture(), other)
    run = evacuate(host[0], other)
    assert run.returncode == 0
    going = {line.split()[-1] for line in run.stdout.partition("starts at")[2].splitlines()[1:]}
    assert going == {str(host[0]), str(other)}


@pytest.mark.parametrize("wrong", [["no.capture"], ["--link", "1Gb"]])
def test_what_cannot_be_read_is_one_line_and_no_answer(wrong: list[str]) -> None:
    run = evacuate(*wrong)
    assert (run.returncode, run.stdout) == (4, "")
    assert len(run.stderr.splitlines()) == 1
    assert run.stderr.startswith("evacuate: ")


def test_that_guests_are_made_up_is_said() -> None:
    run = evacuate()
    assert run.returncode == 1  # its database stays
    assert run.stderr == "evacuate: no captures are given: these guests are made up\n"
