"""tools/kernel-headers.sh, as far as it goes without a network."""

from __future__ import annotations

import subprocess
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "kernel-headers.sh"
NO_PROGRAMS = {"PATH": "/nonexistent"}


def run(folder: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run the tool for ``folder``."""
    return subprocess.run(
        ["/bin/sh", TOOL, folder], env=env, capture_output=True, text=True, check=False
    )


def test_headers_that_are_there_are_left_alone(tmp_path: Path) -> None:
    header = tmp_path / "usr/include/linux/kvm.h"
    header.parent.mkdir(parents=True)
    header.write_text("kept")
    done = run(tmp_path, NO_PROGRAMS)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert header.read_text() == "kept"


def test_a_folder_with_other_things_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    done = run(tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        f"kernel-headers: {tmp_path} holds something else than kernel headers: remove it\n"
    )
    assert (tmp_path / "mine").read_text() == "kept"


def test_a_machine_without_apt_is_told_what_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path / "headers", NO_PROGRAMS)
    assert done.returncode == 1
    assert done.stderr == "kernel-headers: needs apt-get, which Debian and Ubuntu have\n"
