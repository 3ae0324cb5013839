"""The tutorial's outputs are what its commands print, but for numbers, and what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.docs.pages import ROOT
from tests.docs.transcripts import commands_of, run, wrong

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

TUTORIAL = ROOT / "docs" / "tutorial.md"


def test_all_that_the_tutorial_shows_is_printed(tmp_path: Path) -> None:
    runs: dict[str, subprocess.CompletedProcess[str]] = {}
    status = ""
    for command in commands_of(TUTORIAL.read_text()):
        if command.line == "echo $?":
            assert command.shown == status
            continue
        if command.line not in runs:  # what it prints is shown in several pieces
            runs[command.line] = run(command.line, tmp_path)
        status = str(runs[command.line].returncode)
        assert not wrong(command, runs[command.line].stdout)
    assert len(runs) >= 6
