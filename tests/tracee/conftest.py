"""The process whose threads are borrowed, built from C."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.support import need
from tests.tracee.sleeper import SOURCE, Sleeper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def _on_this_machine() -> None:
    need(
        platform.machine() == "x86_64", "threads are borrowed on x86-64 only", "KVMENC_REQUIRE_KVM"
    )


@pytest.fixture(scope="session")
def sleeper_program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which(os.environ.get("CC", "cc"))
    need(compiler is not None, "no C compiler", "KVMENC_REQUIRE_HEADERS")
    assert compiler is not None
    program = tmp_path_factory.mktemp("sleeper") / "sleeper"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", "-mxsave", "-mpku", "-pthread"]
    subprocess.run([compiler, *flags, "-o", program, SOURCE], check=True)
    return program


@pytest.fixture
def start(sleeper_program: Path) -> Iterator[Callable[[str], Sleeper]]:
    """Starts a sleeper of a kind; all are ended after the test."""
    started: list[Sleeper] = []

    def start_one(kind: str) -> Sleeper:
        started.append(Sleeper(sleeper_program, kind))
        return started[-1]

    yield start_one
    for sleeper in started:
        sleeper.__exit__()
