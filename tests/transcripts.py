"""Console blocks of a Markdown page: carried out again, and what they print compared.

A block begins with ```` ```console ````; lines that begin with ``$ `` are commands, ``> `` goes on
with one, and what follows is what it printed. A line ``...`` stands for any lines, and within a
line it stands for any words. Numbers with their units may be others, and so may be the room between
columns: hosts, guests and times differ.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["Command", "commands_of", "differences", "run"]

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"\d[\d,.]*( ?([nmu]?s|min|h|[KMGT]?i?B(/s)?|pages/s|%)(?![a-z]))?")
_PATIENCE_S = 100


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page, and what the page says that it prints."""

    line: str
    printed: str


def commands_of(section: str) -> list[Command]:
    """The commands of a section's console blocks, in order."""
    return [command for block in _BLOCK.findall(section) for command in _commands(block)]


def _commands(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        more = next((i for i, it in enumerate(lines[1:], 1) if not it.startswith("> ")), len(lines))
        line = "\n".join([lines[0], *(it[2:] for it in lines[1:more])])
        yield Command(line, "\n".join(lines[more:]))


def run(command: Command, folder: Path, places: Mapping[str, str] | None = None) -> str:
    """What it prints, both streams in one, in a terminal of 80 columns' width that is none.

    Args:
        command: carried out by bash.
        folder: where.
        places: paths of the page, and where they are here.
    """
    line = command.line
    for there, here in (places or {}).items():
        line = line.replace(there, here)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", line],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "80"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_PATIENCE_S,
        check=False,
    ).stdout


def differences(command: Command, printed: str) -> str:
    """Empty if it is what the page says; else both, to be read."""
    wanted, got = _plain(command.printed), _plain(printed)
    if re.fullmatch("".join(map(_pattern, wanted)), "".join(f"{it}\n" for it in got)):
        return ""
    return f"$ {command.line}\nshould print\n{command.printed}\nand printed\n{printed}"


def _pattern(line: str) -> str:
    if line == "...":
        return "(?:.*\n)*?"
    return ".*".join(map(re.escape, line.split("..."))) + "\n"


def _plain(text: str) -> list[str]:
    lines = [" ".join(_NUMBER.sub("#", line).split()) for line in text.splitlines()]
    return [line for line in lines if line]
