"""``fakekvm record`` as a command: its exit status, its messages, its signals, its file."""

from __future__ import annotations

import os
import shutil
import signal
import struct
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kvmenc.backend.recordfile import load_recording
from tests.recorder.conftest import on_kvm
from tests.support import WAITS, need_kvm

if TYPE_CHECKING:
    from pathlib import Path

    from tests.recorder.conftest import Record


def start(*args: str) -> subprocess.Popen[str]:
    """The command as it is, in a session of its own: signals to its group reach nobody else."""
    return subprocess.Popen(
        [sys.executable, "-m", "fakekvm.cli", "record", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


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
def test_the_exit_status_is_the_programs(command: list[str], status: int, record: Record) -> None:
    recorded = record(*command)
    assert recorded.result.returncode == status
    assert not recorded.path.exists(), "KVM was asked nothing"


def test_options_behind_the_program_are_its_own(record: Record) -> None:
    assert record("sh", "-c", "echo $0 $1", "-o", "--help").result.stdout == "-o --help\n"


def test_a_program_that_the_kernel_cannot_execute(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"\x7fELF, but no more")
    program.chmod(0o755)
    result = on_kvm(str(program))
    assert result.returncode == 126
    assert "Exec format error" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ([], 2),
        (["--bogus", "true"], 2),
        (["-o", "/no/such/folder/file", "true"], 4),
        (["-o", "/tmp", "true"], 4),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], status: int) -> None:
    result = on_kvm(*arguments)
    assert (result.returncode, result.stdout) == (status, "")
    assert result.stderr.strip()


def test_a_program_in_a_program_in_a_program_is_stopped_and_goes_on(record: Record) -> None:
    """Stops by signal are the shell's to see; and nothing is left that waits."""
    script = "sh -c 'kill -STOP $$; exit 7' & sleep 0.1; kill -CONT $!; wait $!"
    assert record("sh", "-c", script).result.returncode == 7


@pytest.mark.kvm
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_is_the_programs_and_what_was_asked_is_written(name: str, tmp_path: Path) -> None:
    need_kvm()
    path = tmp_path / "a.recording"
    running = start("-o", str(path), "--", sys.executable, "-S", "-E", "-c", WAITS, name)
    assert running.stdout is not None
    assert running.stdout.readline() == "waiting\n"
    number = getattr(signal, name)
    if name == "SIGINT":
        os.killpg(running.pid, number)  # as a terminal does
    else:
        running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert (running.returncode, out) == (5, f"told {number}\n"), err
    assert len(load_recording(path).calls) == 1


def test_a_program_does_not_outlive_us(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    running = start("-o", str(path), "--", "sh", "-c", "echo here; exec sleep 60")
    assert running.stdout is not None
    assert running.stdout.readline() == "here\n"
    running.kill()
    assert running.stdout.read() == "", "the program's end of the pipe is closed"
    running.communicate()
    assert not list(tmp_path.iterdir())


def elf32(code: bytes) -> bytes:
    """The smallest 32-bit program."""
    base, headers = 0x8048000, 52 + 32
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, base + headers, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    size = headers + len(code)
    return header + struct.pack("<8I", 1, 0, base, base, size, size, 5, 4096) + code


def test_a_32_bit_program_is_run_and_said_to_be_missing(tmp_path: Path, record: Record) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf32(bytes.fromhex("31c0 40 b305 cd80")))  # exit(5)
    program.chmod(0o755)
    result = record(str(program)).result
    if result.returncode == 126:
        pytest.skip("this kernel executes no 32-bit programs")
    assert result.returncode == 5
    assert f"{program} is a 32-bit program: what it asks is not recorded" in result.stderr


def test_a_set_uid_program_is_said_to_run_without_its_rights(
    tmp_path: Path, record: Record
) -> None:
    program = tmp_path / "program"
    shutil.copy("/bin/true", program)
    try:
        os.chown(program, os.geteuid() + 1, -1)
    except PermissionError:
        pytest.skip("only root can give a file away")
    program.chmod(0o4755)
    result = record(str(program)).result
    assert result.returncode == 0
    assert f"{program} runs without its set-uid rights" in result.stderr
