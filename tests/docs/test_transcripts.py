"""How pages are compared with what their commands print."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.transcripts import Command, commands_of, run, wrong

if TYPE_CHECKING:
    from pathlib import Path

PRINTED = "a  12 ms\nb 3\n\nc %\n"


@pytest.mark.parametrize(
    "shown",
    ["a 7 s b 4 c %", "a 7 s\n...\nc %", "...\nc %\n", "a 1 MiB\n...", "a ...\nb 1 c ...", "..."],
)
def test_the_same_but_for_numbers_and_what_is_not_shown(shown: str) -> None:
    assert not wrong(Command("x", shown), PRINTED)


@pytest.mark.parametrize("shown", ["a 7 s", "c %", "c %\n...\na 7 s", "a x\n...", "a 7 s b c %"])
def test_a_difference_is_found(shown: str) -> None:
    assert "$ x" in wrong(Command("x", shown), PRINTED)


def test_a_block_is_read_and_carried_out(tmp_path: Path) -> None:
    text = "```console\n$ echo 1 >a\n$ cat a; echo '\n> b'\n1\nb\n```\n$ not this\n"
    first, second = commands_of(text)
    assert (first.shown, second.line) == ("", "cat a; echo '\nb'")
    assert run(first.line, tmp_path, {"echo": "false; echo"}).returncode == 0
    assert not wrong(second, run(second.line, tmp_path).stdout)
