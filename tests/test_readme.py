"""What the README tells its reader to type does what it says.

What needs a QEMU is carried out in :mod:`tests.qemu.test_readme`; the table of real migrations is
compared in :mod:`tests.backtest.test_recorded`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.transcripts import ROOT, commands_of, differences, run

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text()
ON_AN_SEV_HOST = {"kvmenc probe": "fakekvm run --host sev-v2-2019 -- kvmenc probe 2>/dev/null"}


def section(name: str) -> str:
    return README.split(f"\n## {name}\n")[1].split("\n## ")[0]


def check(name: str, folder: Path) -> None:
    for command in commands_of(section(name)):
        assert not differences(command, run(command, folder))


def test_a_real_host_is_probed(tmp_path: Path) -> None:
    probe = commands_of(section("A real host"))[0]
    assert not differences(probe, run(probe, tmp_path, ON_AN_SEV_HOST))


def test_ci_without_a_kvm(tmp_path: Path) -> None:
    (program,) = re.findall(
        r"```python\n# test_vmm.py\n(.*?)```", section("CI without a KVM"), re.DOTALL
    )
    (tmp_path / "test_vmm.py").write_text(program)
    check("CI without a KVM", tmp_path)


def test_scripted_migrations(tmp_path: Path) -> None:
    check("Scripted migrations", tmp_path)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\]\(([^)#:]+)\)", README))))
def test_what_it_links_to_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("shown", "alike"),
    [
        ("a 1 KiB\n...", True),
        ("...\nb  22 ms", True),
        ("a 3 MiB\nb 4 s", True),
        ("a ...\nb 1 s", True),
        ("a 3 MiB", False),
    ],
)
def test_what_counts_as_the_same(shown: str, *, alike: bool) -> None:
    (command,) = commands_of(f"```console\n$ x\n{shown}\n```\n")
    assert (differences(command, "a 5 KiB\n\nb 7 ms\n") == "") is alike
