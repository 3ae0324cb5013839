"""Programs of others, run on the fake."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest

from fakekvm.cli import main
from tests.support import need

PROGRAMS = Path(__file__).parent / "programs"
PYTHON_VMM = [sys.executable, "-S", "-E", str(PROGRAMS / "vmm.py")]
FAKE = [sys.executable, "-m", "fakekvm.cli", "run"]

Runs = Callable[[list[str]], int]


class Result(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


def command(args: list[str]) -> int:
    """``fakekvm run``, in this process."""
    try:
        main(["run", *args], standalone_mode=True)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def on_fake(*args: str, runs: Runs = command) -> Result:
    """Run it in a fork of ours: starting Python and importing numpy would take most of the time."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, no_warning_of_threads():
        pid = os.fork()
        if pid == 0:
            _become(out.fileno(), err.fileno(), partial(runs, list(args)))
        try:
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        except BaseException:  # it hangs, and this test is given up
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise
        texts = [os.pread(file.fileno(), 1 << 20, 0).decode() for file in (out, err)]
    return Result(status, *texts)


def _become(out: int, err: int, does: Callable[[], int]) -> NoReturn:
    status = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for fd, target in ((out, 1), (err, 2)):
            os.dup2(fd, target)
        sys.stdout, sys.stderr = (os.fdopen(fd, "w", closefd=False) for fd in (1, 2))
        status = does()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


@contextmanager
def no_warning_of_threads() -> Iterator[None]:
    """Python warns of forks beside threads since 3.12; those of other tests do not matter here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def start(*args: str) -> subprocess.Popen[str]:
    """The command as it is, in a session of its own: signals to its group reach nobody else."""
    return subprocess.Popen(
        [*FAKE, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="session", autouse=True)
def _on_this_machine() -> None:
    need(platform.machine() == "x86_64", "programs are run on x86-64 only", "KVMENC_REQUIRE_KVM")
    probe = on_fake("true")
    need(probe.returncode != 3, probe.stderr.strip(), "KVMENC_REQUIRE_KVM")
    assert probe.returncode == 0, probe.stderr


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Builds a program of ours, once for each set of flags."""
    built: dict[tuple[str, ...], Path] = {}
    folder = tmp_path_factory.mktemp("vmm")
    compiler = shutil.which(os.environ.get("CC", "cc"))

    def build_one(*flags: str, source: str = "vmm.c") -> str:
        need(compiler is not None, "no C compiler", "KVMENC_REQUIRE_HEADERS")
        key = (source, *flags)
        if key not in built:
            program = folder / f"vmm{len(built)}"
            words = [compiler, "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", *flags]
            made = subprocess.run(
                [*map(str, words), "-o", program, PROGRAMS / source],
                capture_output=True,
                text=True,
                check=False,
            )
            no_libc_a = "-static" in flags and "cannot find -l" in made.stderr
            need(not no_libc_a, "no static C library", "KVMENC_REQUIRE_HEADERS")
            assert made.returncode == 0, made.stderr
            built[key] = program
        return str(built[key])

    return build_one


@pytest.fixture
def vmm(build: Callable[..., str]) -> str:
    return build()
