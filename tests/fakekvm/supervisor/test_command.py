"""``fakekvm run`` as a command: its exit status, its messages, its signals."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from tests.fakekvm.supervisor.conftest import FAKE, on_fake, start
from tests.support import WAITS

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 42"], 42),
        (["sh", "-c", "kill -TERM $$"], 128 + signal.SIGTERM),
        (["/no/such/program"], 127),
        (["no-such-program"], 127),
        (["/etc/passwd"], 126),
    ],
)
def test_the_exit_status_is_the_programs(command: list[str], status: int) -> None:
    assert on_fake(*command).returncode == status


def test_options_behind_the_program_are_its_own() -> None:
    assert on_fake("sh", "-c", "echo $0 $1", "--host", "--help").stdout == "--host --help\n"


def test_a_program_that_the_kernel_cannot_execute(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF, but no more")
    program.chmod(0o755)
    result = on_fake(str(program))
    assert result.returncode == 126
    assert "Exec format error" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--host", "nowhere", "true"], ["--bogus", "true"]])
def test_usage(arguments: list[str]) -> None:
    assert on_fake(*arguments).returncode == 2


def test_a_wrong_scenario() -> None:
    assert on_fake("--scenario", "/no/such/file", "true").returncode == 4


def test_where_it_cannot_be_had() -> None:
    """A process can be under one such filter only."""
    result = on_fake(*FAKE, "true")
    assert result.returncode == 3
    assert "already" in result.stderr


@pytest.mark.parametrize("name", ["SIGINT", "SIGQUIT"])
def test_signals_of_the_terminal_are_the_programs(name: str) -> None:
    running = start(sys.executable, "-c", WAITS, name)
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    number = getattr(signal, name)
    os.killpg(running.pid, number)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (5, f"told {number}\n"), err


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_a_signal_to_us_is_passed_on(name: str) -> None:
    running = start(sys.executable, "-c", WAITS, name)
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    number = getattr(signal, name)
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (5, f"told {number}\n"), err


def test_a_program_does_not_outlive_us() -> None:
    running = start(sys.executable, "-c", WAITS, "SIGTERM")
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    running.kill()
    assert running.stdout.read() == "", "the program's end of the pipe is closed"
    running.communicate()


def test_signals_that_python_ignores_are_not_ignored_by_the_program() -> None:
    script = "yes | head -1; grep SigIgn /proc/self/status"
    ignored = int(on_fake("sh", "-c", script).stdout.split()[-1], 16)
    here = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGIO}
    assert not ignored & sum(1 << number - 1 for number in here)
