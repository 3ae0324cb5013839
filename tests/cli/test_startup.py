"""``--help`` is there at once: no command imports what it needs before it runs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from kvmenc.cli import COMMANDS
from tests.cli.pty import BIN

HELPS = [
    ["kvmenc", "--help"],
    *(["kvmenc", name, "--help"] for name in COMMANDS),
    ["fakekvm", "--help"],
    ["fakekvm", "run", "--help"],
    ["fakekvm", "record", "--help"],
]
#: Of these, those with most options.
LONGEST = [it for it in HELPS if it[1] in {"--help", "dry-run", "plan", "run"}]
SLOW = {"asyncio", "cryptography", "numpy", "pyroute2", "qemu", "rich"}

ALL_IN_ONE_PROCESS = f"""
import sys
from fakekvm.cli import main as fakekvm
from kvmenc.cli import root as kvmenc
for program, *words in {HELPS}:
    try:
        (kvmenc if program == "kvmenc" else fakekvm)(words)
    except SystemExit as end:
        assert end.code == 0, (program, words)
print({SLOW} & set(sys.modules))
"""


def test_help_imports_nothing_slow() -> None:
    run = subprocess.run(
        [sys.executable, "-c", ALL_IN_ONE_PROCESS], capture_output=True, text=True, check=True
    )
    *text, imported = run.stdout.splitlines()
    assert sum(line.startswith("Usage: ") for line in text) == len(HELPS)
    assert imported == "set()"


def test_the_pytest_plugin_imports_nothing_slow() -> None:
    """Every pytest run of every project beside us does that."""
    code = f"import sys, fakekvm.pytest_plugin; print({SLOW} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "set()\n"


@pytest.mark.alone
@pytest.mark.parametrize("command", LONGEST, ids=" ".join)
def test_help_is_quick(command: list[str]) -> None:
    """150 ms of CPU, which is all that it waits for; twice that, as a busy machine slows it."""
    took_s = [cpu_s(command)]
    while min(took_s) >= 2 * 0.15 and len(took_s) < 5:
        took_s.append(cpu_s(command))
    assert min(took_s) < 2 * 0.15, took_s


def cpu_s(command: list[str]) -> float:
    """What a command takes of the CPU, in seconds."""
    pid = os.posix_spawn(
        BIN / command[0], command, os.environ,
        file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)],
    )  # fmt: skip
    _, status, used = os.wait4(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    return used.ru_utime + used.ru_stime
