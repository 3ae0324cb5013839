"""Programs that share no code with this project, and check by themselves what they are answered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from fakekvm.machine import Machine
from fakekvm.supervisor import run
from tests.fakekvm.supervisor.conftest import FAKE, PYTHON_VMM, on_fake
from tests.fakekvm.supervisor.endless import endless
from tests.support import kvm_opens, need

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from fakekvm.calls import Caller, File


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_a_c_program_lives_a_vms_whole_life(build: Callable[..., str], flags: list[str]) -> None:
    """Dirty pages of its memory were written, all others and all other bytes were not."""
    result = on_fake(build(*flags), "whole-life")
    assert (result.returncode, result.stderr.count("\n")) == (0, 1), result.stderr
    assert result.stdout.endswith(" pages\n")


def test_so_does_a_python_program_that_uses_fcntl_only() -> None:
    result = on_fake(*PYTHON_VMM, "whole-life")
    assert result.returncode == 0, result.stderr
    assert 30 < int(result.stdout) <= 64


def test_it_is_said_at_the_start_what_runs(vmm: str) -> None:
    result = on_fake(vmm, "whole-life")
    assert "KVM_RUN runs a scripted guest, never the program's code" in result.stderr.split("\n")[0]
    assert "64 random pages" in result.stderr


@pytest.mark.parametrize(
    "what", ["without-guest", "forks", "executes", "threads", "descriptors", "reopens"]
)
def test_whatever_a_program_does_with_processes_and_descriptors(vmm: str, what: str) -> None:
    result = on_fake(vmm, what)
    assert result.returncode == 0, result.stderr


def test_the_programs_are_right_where_a_real_kvm_can_say(vmm: str, tmp_path: Path) -> None:
    """Of the programs here, what needs no guest code."""
    need(kvm_opens(), "/dev/kvm does not open here", "KVMENC_REQUIRE_KVM")
    for command in (
        [vmm, "without-guest"],
        [*PYTHON_VMM, "unknown"],
        [*PYTHON_VMM, "looks", str(tmp_path)],
    ):
        result = subprocess.run(command, check=False, capture_output=True)
        assert result.returncode == 0, result.stderr


def test_signals_while_a_call_is_answered_repeat_no_call(vmm: str) -> None:
    """A log that is read twice loses what it gave the first time."""
    result = on_fake(vmm, "storm", "200")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("what", ["kick", "kick-with-mask"])
def test_a_signal_ends_kvm_run(vmm: str, what: str) -> None:
    result = on_fake(vmm, what, runs=endless)
    assert result.returncode == 0, result.stderr


def test_others_are_answered_while_a_vcpu_runs_and_exit_ends_it(vmm: str) -> None:
    result = on_fake(vmm, "leaves-one-running", runs=endless)
    assert (result.returncode, result.stdout) == (4, "done\n"), result.stderr


def test_a_killed_program_ends_the_run(vmm: str) -> None:
    script = f'"{vmm}" leaves-one-running & sleep 0.3; kill -9 $! 2>/dev/null; wait; kill -9 $$'
    assert on_fake("sh", "-c", script, runs=endless).returncode == 137


def test_orphans_are_served_and_waited_for(vmm: str) -> None:
    result = on_fake(vmm, "orphans")
    assert result.returncode == 7, result.stderr
    assert result.stdout.endswith(" pages\n")


def test_unknown_ioctls_are_listed_at_the_end() -> None:
    result = on_fake(*PYTHON_VMM, "unknown")
    assert result.returncode == 0, result.stderr
    assert result.stderr.split("\n")[1:] == [
        "fakekvm: unknown ioctl: 0xaefe on a file of kind vm (3 times)",
        "",
    ]


def test_the_device_looks_and_opens_by_any_name(tmp_path: Path) -> None:
    result = on_fake(*PYTHON_VMM, "looks", str(tmp_path))
    assert result.returncode == 0, result.stderr


def test_a_descriptor_in_an_argument_is_one_of_the_programs() -> None:
    result = on_fake(*PYTHON_VMM, "guest-memfd")
    assert result.returncode == 0, result.stderr


def test_sev_commands_and_the_end_of_a_vm() -> None:
    result = on_fake("--host", "sev", *PYTHON_VMM, "sev")
    assert result.returncode == 0, result.stderr


class Mistaken(Machine):
    def carry_out(self, file: File, request: int, arg: int, caller: Caller) -> int | File:
        raise ZeroDivisionError


def test_a_mistake_in_the_fake_is_told_and_keeps_nobody_waiting() -> None:
    def runs(command: list[str]) -> int:
        return run(command, Mistaken(), lambda text: print(text, file=sys.stderr))

    result = on_fake(*PYTHON_VMM, "whole-life", runs=runs)
    assert result.returncode == 1
    assert "ZeroDivisionError" in result.stderr
    assert "Input/output error" in result.stderr


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("mainline", ["open works", "stat works", "sev ENOENT", "access True"]),
        ("sev", ["open works", "stat works", "sev works", "access True"]),
        ("no-kvm", ["open ENOENT", "stat ENOENT", "sev ENOENT", "access False"]),
        ("no-rights", ["open EACCES", "stat works", "sev ENOENT", "access False"]),
    ],
)
def test_the_host_says_what_there_is(host: str, expected: list[str], tmp_path: Path) -> None:
    """Whatever it is called: the machine's own /dev/kvm is out of sight."""
    result = on_fake("--host", host, *PYTHON_VMM, "refused", str(tmp_path))
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) > 10
    assert set(lines) == set(expected)


def test_other_tools_see_the_device_too() -> None:
    result = on_fake("stat", "-c", "%F %t:%T %a", "/dev/kvm")
    assert result.stdout == "character special file a:e8 660\n", result.stderr


def test_it_needs_no_rights(vmm: str) -> None:
    need(shutil.which("setpriv") is not None, "no setpriv", "KVMENC_REQUIRE_KVM")
    bare = ["setpriv", "--bounding-set=-all"] if os.geteuid() == 0 else []
    result = subprocess.run([*bare, *FAKE, vmm, "whole-life"], capture_output=True, check=False)
    assert result.returncode == 0, result.stderr


def test_a_scenario_says_what_guests_do() -> None:
    result = on_fake("--scenario", "bursts", "--", "true")
    assert result.returncode == 0, result.stderr
    assert "64 random pages" not in result.stderr
