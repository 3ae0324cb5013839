"""Faults of a scenario, in programs under ``fakekvm run``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakekvm.scenario import SCHEMA
from tests.fakekvm.supervisor.conftest import PYTHON_VMM, Result, on_fake

if TYPE_CHECKING:
    from pathlib import Path

HALTS = f'schema = "{SCHEMA}"\n[[guest]]\n[[guest.phase]]\ndoes = "halt"\n'


def lives(folder: Path, faults: str, *options: str) -> Result:
    """A whole life of a VM whose guest only halts; it says how many pages were dirty."""
    scenario = folder / "faults.toml"
    scenario.write_text(HALTS + faults)
    return on_fake("--scenario", str(scenario), *options, *PYTHON_VMM, "whole-life")


def test_a_guest_writes_just_before_a_call(tmp_path: Path) -> None:
    faults = """
[[fault]]
request = "KVM_GET_DIRTY_LOG"
[[fault.before]]
does = "write"
gfns = ["slot 3", "1 MiB-2 MiB"]
"""
    result = lives(tmp_path, faults)
    assert (result.returncode, result.stdout) == (0, "512\n"), result.stderr
    assert result.stderr.splitlines()[-1] == "fakekvm: fault[0]: KVM_GET_DIRTY_LOG (1 times)"


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ('request = "KVM_CREATE_VM"\nerror = "ENOMEM"', "Cannot allocate memory"),
        ('above = "1 MiB"\nerror = "ENOMEM"', "Cannot allocate memory"),
        ('request = "KVM_CREATE_VCPU"\nerror = "death"', "Input/output error"),
        ('error = "EXDEV"\nskip = 3', "Invalid cross-device link"),
        ('request = 0xAE80\nerror = "EBADF"', "Bad file descriptor"),
    ],
)
def test_a_call_fails(tmp_path: Path, fault: str, says: str) -> None:
    result = lives(tmp_path, f"[[fault]]\n{fault}\n")
    assert result.returncode == 1
    assert says in result.stderr
    assert "(1 times)" in result.stderr


def test_a_host_without_the_ioctl_is_told_of(tmp_path: Path) -> None:
    faults = 'host = "sev-v9"\n'
    text = HALTS.replace("[[guest]]", f"{faults}[[guest]]", 1)
    (tmp_path / "mine.toml").write_text(
        text + '[[fault]]\nrequest = "KVM_GET_PAGE_ENC_BITMAP"\nerror = "EIO"\n'
    )
    arguments = ("--scenario", str(tmp_path / "mine.toml"), "--host", "mainline", "true")
    result = on_fake(*arguments)
    assert result.returncode == 4
    assert "fakekvm: no ioctl is called 'KVM_GET_PAGE_ENC_BITMAP' on this host" in result.stderr
