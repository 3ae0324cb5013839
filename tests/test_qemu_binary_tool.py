"""tools/qemu-binary.sh, as far as it goes without a network."""

from __future__ import annotations

import subprocess
from pathlib import Path

TOOL = Path(__file__).parents[1] / "tools" / "qemu-binary.sh"
NO_PROGRAMS = {"PATH": "/nonexistent"}


def run(
    folder: Path, *prefixes: str, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the tool for ``folder``."""
    return subprocess.run(
        ["/bin/sh", TOOL, folder, *prefixes], env=env, capture_output=True, text=True, check=False
    )


def lay(folder: Path, version: str) -> Path:
    """A program that says that it is QEMU."""
    program = folder / "qemu-system-x86_64"
    program.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version} (Debian 1:{version})'\n")
    program.chmod(0o755)
    return program


def test_a_qemu_that_is_there_is_left_alone(tmp_path: Path) -> None:
    program = lay(tmp_path, "10.0.13")
    kept = program.read_text()
    for prefixes in ((), ("10",), ("11.1", "10.0.13")):
        done = run(tmp_path, *prefixes, env=NO_PROGRAMS)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert program.read_text() == kept


def test_another_version_is_refused_and_kept(tmp_path: Path) -> None:
    program = lay(tmp_path, "10.01")
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"qemu-binary: {tmp_path} holds something else than a QEMU 10.0 that runs here: remove it\n"
    )
    assert program.exists()


def test_a_machine_without_apt_is_told_what_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path / "qemu", env=NO_PROGRAMS)
    assert done.returncode == 1
    assert done.stderr == "qemu-binary: needs apt-get, which Debian and Ubuntu have\n"
