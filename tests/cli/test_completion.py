"""What the Tab key does, in each shell that is here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from fakekvm.cli import main as fakekvm
from kvmenc.cli import COMMANDS, root
from tests.cli.pty import BIN, on_terminal
from tests.support import need

if TYPE_CHECKING:
    from pathlib import Path

    import click

#: What is typed, and what a Tab makes of it.
COMPLETED = {
    "kvmenc che": "kvmenc check-order",
    "kvmenc plan --private-b": "kvmenc plan --private-batch",
    "kvmenc completion z": "kvmenc completion zsh",
    "kvmenc show gu": "kvmenc show guest.capture",
}
SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "bind 'set enable-bracketed-paste off'"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit; compinit -u -D"),
}


def need_shell(name: str) -> None:
    need(shutil.which(name) is not None, f"no {name} is here", f"KVMENC_REQUIRE_{name.upper()}")


@pytest.mark.parametrize("shell", SHELLS)
def test_tab_completes(shell: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need_shell(shell)
    (tmp_path / "guest.capture").touch()
    monkeypatch.chdir(tmp_path)
    command, prepare = SHELLS[shell]
    with on_terminal(command, PS1="ready ", TERM="dumb") as terminal:
        terminal.type(f"{prepare}\n")
        # Quotes: so that what is waited for is not the echo of what was typed.
        terminal.type(f'eval "$(kvmenc completion {shell})"; echo ready""already\n')
        terminal.read_until("readyalready")
        for typed, completed in COMPLETED.items():
            terminal.type(f"{typed}\t")
            terminal.read_until(completed)
            terminal.type("\x15")  # the line is taken away


def test_fish_completes(tmp_path: Path) -> None:
    need_shell("fish")
    (tmp_path / "guest.capture").touch()
    asked = "; ".join(f"complete -C '{typed}'" for typed in COMPLETED)
    found = subprocess.run(
        ["fish", "--no-config", "-c", f"kvmenc completion fish | source; {asked}"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
        env={**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"},
    )  # fmt: skip
    words = [line.split("\t")[0] for line in found.stdout.splitlines()]
    assert words == [completed.split()[-1] for completed in COMPLETED.values()]


@pytest.mark.parametrize(
    ("program", "words", "offered"),
    [
        (root, "kvmenc ", list(COMMANDS)),
        (root, "kvmenc plan --backend ", ["local", "fake", "replay:"]),
        (root, "kvmenc dry-run --fault s", ["send-error"]),
        (root, "kvmenc dry-run --scenario b", ["boot-linux", "bounce-buffers", "bursts"]),
        (fakekvm, "fakekvm run --scenario k", ["kexec"]),
        (fakekvm, "fakekvm run --host sev-e", ["sev-es"]),
    ],
)
def test_words_are_offered(program: click.Command, words: str, offered: list[str]) -> None:
    assert [line.split(",", 1) for line in asked(program, words)] == [
        ["plain", it] for it in offered
    ]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (root, "kvmenc dry-run --scenario ./my"),
        (fakekvm, "fakekvm run -- ./my"),
    ],
)
def test_files_are_left_to_the_shell(program: click.Command, words: str) -> None:
    assert [line.split(",")[0] for line in asked(program, words)] == ["file"]


def test_recordings_are_found_behind_their_prefix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sev.recording").touch()
    (tmp_path / "sev-hosts").mkdir()
    (tmp_path / "sev-hosts" / "b").touch()
    for start, offered in (
        ("sev", ["sev-hosts/", "sev.recording"]),
        ("./sev-hosts/", ["./sev-hosts/b"]),
        ("none/", []),
    ):
        lines = asked(root, f"kvmenc probe --backend replay:{start}")
        assert [it for it in lines if it] == [f"plain,replay:{it}" for it in offered]


def asked(program: click.Command, words: str) -> list[str]:
    """What the program answers to the script of bash; the last word is not complete."""
    name = words.split(" ", maxsplit=1)[0]
    environment = {
        f"_{name.upper()}_COMPLETE": "bash_complete",
        "COMP_WORDS": words,
        "COMP_CWORD": str(words.count(" ")),
    }
    return CliRunner(env=environment).invoke(program, prog_name=name).stdout.splitlines()


def test_json_holds_the_script() -> None:
    text = CliRunner().invoke(root, ["completion", "zsh", "--program", "fakekvm"]).stdout
    answer = json.loads(
        CliRunner().invoke(root, ["completion", "zsh", "--program", "fakekvm", "--json"]).stdout
    )
    assert text.startswith("#compdef fakekvm\n")
    assert answer["schema"] == "kvmenc.completion/1"
    assert (answer["shell"], answer["program"], answer["script"]) == ("zsh", "fakekvm", text)


def test_a_shell_that_is_not_known() -> None:
    assert CliRunner().invoke(root, ["completion", "tcsh"]).exit_code == 2
