"""What the README tells its reader to type does what it says.

What needs a QEMU is carried out in :mod:`tests.qemu.test_readme`; the table of real migrations is
compared in :mod:`tests.backtest.test_recorded`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.pages import ROOT
from tests.docs.transcripts import commands_of, run, wrong

if TYPE_CHECKING:
    from pathlib import Path

README = (ROOT / "README.md").read_text()
ON_AN_SEV_HOST = {"kvmenc probe": "fakekvm run --host sev-v2-2019 -- kvmenc probe 2>/dev/null"}


def section(name: str) -> str:
    return README.split(f"\n## {name}\n")[1].split("\n## ")[0]


def check(name: str, folder: Path) -> None:
    for command in commands_of(section(name)):
        assert not wrong(command, run(command.line, folder).stdout)


def test_a_real_host_is_probed(tmp_path: Path) -> None:
    probe = commands_of(section("A real host"))[0]
    assert not wrong(probe, run(probe.line, tmp_path, ON_AN_SEV_HOST).stdout)


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
