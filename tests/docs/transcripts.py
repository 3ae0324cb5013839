"""Console blocks of a page: carried out again, and what they print compared.

A block begins with ```` ```console ````; lines that begin with ``$ `` are commands, ``> `` goes on
with one, and what follows is what it printed; ``...`` stands for what is not shown. Numbers with
their units may be others, and so may line breaks and columns: hosts, guests and times differ.
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

__all__ = ["Command", "commands_of", "run", "wrong"]

_BLOCK = re.compile(r"^```console\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NUMBER = re.compile(r"\d[\d,.]*(?: ?(?:[nmu]?s|min|h|[KMGT]?i?B(?:/s)?|%))?(?!\w)")
_PATIENCE_S = 100


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a page, and what the page says that it prints."""

    line: str
    shown: str


def commands_of(text: str) -> list[Command]:
    """The commands of console blocks, in order."""
    return [command for block in _BLOCK.findall(text) for command in _commands(block)]


def _commands(block: str) -> Iterator[Command]:
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        more = next((i for i, it in enumerate(lines[1:], 1) if not it.startswith("> ")), len(lines))
        line = "\n".join([lines[0], *(it[2:] for it in lines[1:more])])
        yield Command(line, "\n".join(lines[more:]))


def run(
    line: str, folder: Path, places: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command carried out by bash; both its streams are in ``stdout``.

    Args:
        line: as typed.
        folder: where.
        places: what stands for what is not here: paths, programs.
    """
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
    )


def wrong(command: Command, printed: str) -> str:
    """Empty if it is what the page says; else both, to be read."""
    pieces = [re.escape(_masked(it)) for it in command.shown.split("...")]
    if re.fullmatch(" ?.*".join(pieces), _masked(printed)):
        return ""
    return f"$ {command.line}\nshould print\n{command.shown}\nand printed\n{printed}"


def _masked(text: str) -> str:
    """Words, with all numbers alike and all space alike."""
    return _NUMBER.sub("N", " ".join(text.split()))
