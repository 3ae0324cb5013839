"""Each command line that the documentation shows is one that the commands take."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

import click
import pytest

from fakekvm.cli import main as fakekvm
from kvmenc.cli import root as kvmenc
from tests.docs.pages import PAGES, ROOT, lines_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMANDS: dict[str, click.Group] = {"kvmenc": kvmenc, "fakekvm": fakekvm}
#: Where a shell goes on with something else.
ENDS = {"|", "||", "&&", ";", "<", ">", "&", "2>"}
#: What may stand before a command: a prompt, a folder, a command that runs it.
STARTS = re.compile(r"(?:^|&& | -- )\s*(?:\$ )?(?:\S+/bin/)?(?=(?:kvmenc|fakekvm) [a-z-])")
#: Stand for what the reader puts in: such a line is a pattern.
PATTERN = re.compile(r"\[-|\.\.\.|…|\| ?[a-z]+ ?\||^kvmenc [a-z-]+ FILE\.\.\.")


def shown(page: Path) -> Iterator[list[str]]:
    """Words of each command line, without what a shell makes of them."""
    for line in lines_of(page):
        for start in STARTS.finditer(line):
            text = line[start.end() :].partition("  #")[0].partition(" # ")[0].rstrip(" )'")
            if not PATTERN.search(text):
                yield list(words(text))


def words(text: str) -> Iterator[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    lexer.commenters = ""
    for word in lexer:
        if word in ENDS:
            return
        yield word


def wrong_with(line: list[str]) -> str | None:
    """What the command has against it."""
    name, *args = line
    try:
        with COMMANDS[name].make_context(name, list(args)) as context:
            command, *rest = args
            found = COMMANDS[name].get_command(context, command)
            assert found, f"there is no command {command}"
            if rest:  # else it is only named
                found.make_context(command, rest, parent=context).close()
    except click.exceptions.Exit:
        return None
    except (click.ClickException, AssertionError) as error:
        return f"{' '.join(line)}: {error}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_are_taken(page: Path) -> None:
    assert [it for it in map(wrong_with, shown(page)) if it] == []


def test_there_are_such_lines_and_wrong_ones_are_found() -> None:
    assert sum(len(list(shown(page))) for page in PAGES) > 100
    assert wrong_with(["kvmenc", "plan", "--max-bandwith", "1GB/s"])
    assert wrong_with(["kvmenc", "plan", "--max-bandwidth", "1 Gb"])
    assert wrong_with(["kvmenc", "plna"])
    assert not wrong_with(["kvmenc", "plan", "guest.capture", "--max-bandwidth", "1GB/s"])
