"""Ctrl-C in the midst of every long command: 130, one line, and nothing is left behind."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvmenc.capture import save_capture
from kvmenc.plan.described import Described
from tests.cli.pty import Terminal, on_terminal
from tests.examples.test_ci import need_fakekvm_run
from tests.examples.test_examples import alive
from tests.test_architecture import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable

RUNS = [str(it) for it in sorted((ROOT / "tests/data/backtest/qemu-7.2").glob("*.json"))][:60]
MANY_BANDWIDTHS = ",".join(f"{mbit}Mbit" for mbit in range(100, 1100))

#: The command, and what its progress says. All is done in a folder of its own.
LONG = [
    ("demo --backend fake -o demo.capture", "watching the guest"),
    (f"sweep guest.capture --bandwidth {MANY_BANDWIDTHS} --svg sweep.svg", "planning"),
    (" ".join(["backtest", *RUNS]), "predicting"),
    ("dry-run --memory 128MiB --stream a.stream --run run.json", "moving pages"),
    ("probe --measure-firmware --backend fake --seconds 60", "measuring the firmware"),
]
#: How a bar of rich ends: the cursor is there again.
CURSOR_IS_BACK = "\x1b[?25h"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    busy = Described(memory_bytes=2**33, dirty_bytes_per_s=1e8, private_share=0.1)
    save_capture(busy.capture(), tmp_path / "guest.capture")
    return tmp_path


def interrupt(terminal: Terminal) -> tuple[int, str]:
    """Press Ctrl-C; the exit status, and the line that is left on the screen.

    Once in some hundred times Python loses one: in a callback of the garbage collector every
    exception is ignored (docs.python.org, ``sys.unraisablehook``). Its user presses again.
    """
    shown = len(terminal.text)
    terminal.type("\x03")
    try:
        status = terminal.wait(10)
    except subprocess.TimeoutExpired:
        terminal.type("\x03")
        status = terminal.wait()
    assert "Traceback" not in terminal.text
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.text[shown:])
    return status, plain.replace("^C", "").splitlines()[-1].strip()


@pytest.mark.parametrize(("command", "doing"), LONG, ids=[it[0].split()[0] for it in LONG])
def test_ctrl_c_while_progress_shows(folder: Path, command: str, doing: str) -> None:
    with on_terminal(["kvmenc", *command.split()]) as terminal:
        terminal.read_until(doing, 60)
        assert interrupt(terminal) == (130, "kvmenc: interrupted")
        assert terminal.text.rfind(CURSOR_IS_BACK) > terminal.text.rfind("\x1b[?25l")
        assert not alive(terminal.process.pid)
    assert [path.name for path in folder.iterdir()] == ["guest.capture"]


def test_ctrl_c_while_workers_are_started(folder: Path) -> None:
    """It once hung then, or each worker told of it."""
    with on_terminal(["kvmenc", "check-order"]) as terminal:
        own = Path(f"/proc/{terminal.process.pid}")
        wait_for("a worker", (own / "task" / own.name / "children").read_text)
        assert interrupt(terminal) == (130, "kvmenc: interrupted")
        assert terminal.text.count("\n") == 1
        assert not alive(terminal.process.pid)


def test_ctrl_c_while_a_stream_does_not_come(folder: Path) -> None:
    os.mkfifo("a.stream")
    held = os.open("a.stream", os.O_RDWR)
    with on_terminal(["kvmenc", "stream", "a.stream"]) as terminal:
        files = Path(f"/proc/{terminal.process.pid}/fd")
        wait_for("the file", lambda: "a.stream" in {name_of(fd) for fd in files.iterdir()})
        assert interrupt(terminal) == (130, "kvmenc: interrupted")
    os.close(held)


def test_ctrl_c_while_qemu_does_not_answer(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind("silent.qmp")
        silent.listen()
        with on_terminal(["kvmenc", "layout", "--qmp", "silent.qmp"]) as terminal:
            connection, _ = silent.accept()
            assert interrupt(terminal) == (130, "kvmenc: interrupted")
            connection.close()


def test_ctrl_c_under_fakekvm_run_is_the_programs(folder: Path) -> None:
    need_fakekvm_run()
    script = "trap 'echo caught; exit 7' INT; echo here; while :; do sleep 0.05; done"
    with on_terminal(["fakekvm", "run", "--", "sh", "-c", script]) as terminal:
        terminal.read_until("here\r\n")
        assert interrupt(terminal) == (7, "caught")


def wait_for(what: str, found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not found():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.002)


def name_of(descriptor: Path) -> str:
    try:
        return descriptor.readlink().name
    except FileNotFoundError:  # it has just been closed
        return ""
