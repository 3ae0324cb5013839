"""The tutorial's outputs are what its commands print, but for numbers, and what is left out."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from tests.docs.pages import ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Iterator

TUTORIAL = ROOT / "docs" / "tutorial.md"
#: With its unit, which follows its size.
NUMBER = re.compile(r"\d[\d,.]*(?: ?(?:us|ms|s|min|h|B|KiB|MiB|GiB))?(?!\w)")


def masked(text: str) -> str:
    """Words, with all numbers alike and all space alike."""
    return NUMBER.sub("N", " ".join(text.split()))


def sessions() -> Iterator[tuple[str, str]]:
    """Each command with the output that is shown."""
    for block in blocks(TUTORIAL, "console"):
        for part in block.split("$ ")[1:]:
            command, _, output = part.partition("\n")
            yield command, output


def missing(shown: str, printed: str) -> list[str]:
    """What is not printed of what is shown between dots, in this order."""
    at, text = 0, masked(printed)
    for piece in map(masked, re.split(r"^\.\.\.$", shown, flags=re.MULTILINE)):
        found = text.find(piece, at)
        if found < 0:
            return [piece]
        at = found + len(piece)
    return []


def test_all_that_the_tutorial_shows_is_printed(tmp_path: Path) -> None:
    runs: dict[str, subprocess.CompletedProcess[str]] = {}
    status = ""
    for command, shown in sessions():
        if command == "echo $?":
            assert shown.strip() == status
            continue
        if command not in runs:  # what it prints is shown in several pieces
            runs[command] = kvmenc(command, tmp_path)
        status = str(runs[command].returncode)
        assert missing(shown, runs[command].stdout) == [], runs[command]
    assert len(runs) >= 6


def kvmenc(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    name, *args = shlex.split(command)
    assert name == "kvmenc"
    return subprocess.run(
        [Path(sys.executable).parent / name, *args],
        cwd=folder,
        env=os.environ | {"COLUMNS": "80"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_difference_is_found() -> None:
    printed = "a  12 ms\nb 3\nc\n"
    assert not missing("a 7 s\n...\nc\n", printed)
    assert missing("a 7 s\nc\n", printed)
    assert missing("c\n...\na 7 s\n", printed)
