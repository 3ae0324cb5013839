"""Programs recorded by ``fakekvm record``."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fakekvm.cli import main
from kvmenc.backend.recordfile import load_recording
from tests.fakekvm.supervisor.conftest import Result, on_fake
from tests.support import need

if TYPE_CHECKING:
    from kvmenc.backend.recordmodel import Recording

SOURCE = Path(__file__).parent / "asker.c"
SECRET = "Xq7!vKz0#pWm9?tL"


class Recorded(NamedTuple):
    """What came of a command."""

    result: Result
    path: Path

    @property
    def recording(self) -> Recording:
        assert self.result.returncode == 0, self.result.stderr
        return load_recording(self.path)


Record = Callable[..., Recorded]


def command(args: list[str]) -> int:
    """``fakekvm record``, in this process."""
    try:
        main(["record", *args], standalone_mode=True)
    except SystemExit as error:
        return int(error.code or 0)
    return 0


def on_kvm(*args: str) -> Result:
    """The command in a fork of ours, which has imported everything."""
    return on_fake(*args, runs=command)


@pytest.fixture(scope="session", autouse=True)
def _on_this_machine() -> None:
    need(platform.machine() == "x86_64", "programs are recorded on x86-64 only", _REQUIRED)
    probe = on_kvm("true")
    need(probe.returncode != 3, probe.stderr.strip(), _REQUIRED)
    assert probe.returncode == 0, probe.stderr


_REQUIRED = "KVMENC_REQUIRE_KVM"


@pytest.fixture(scope="session")
def asker(tmp_path_factory: pytest.TempPathFactory) -> str:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    need(compiler is not None, "no C compiler", "KVMENC_REQUIRE_HEADERS")
    assert compiler is not None
    program = tmp_path_factory.mktemp("asker") / "asker"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    subprocess.run([compiler, *flags, "-o", program, SOURCE], check=True)
    return str(program)


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """Records a program, with these options of the command."""

    def record_one(*program: str, options: tuple[str, ...] = ()) -> Recorded:
        path = tmp_path / "a.recording"
        return Recorded(on_kvm("-o", str(path), *options, "--", *program), path)

    return record_one
