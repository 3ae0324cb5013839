"""What people type who have not read the pages: slips are told in words that help."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from fakekvm.cli import main as fakekvm
from fakekvm.host import host_names
from kvmenc import scratchrun
from kvmenc.capture import save_capture
from kvmenc.cli import COMMANDS, root
from kvmenc.plan.described import Described

if TYPE_CHECKING:
    from pathlib import Path

TOO_LONG = "x" * 300


def kvmenc(*words: str) -> Result:
    return CliRunner().invoke(root, words)


@pytest.fixture
def capture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_capture(Described(memory_bytes=2**26).capture(), "a.capture")
    return tmp_path / "a.capture"


@pytest.mark.parametrize("name", COMMANDS)
def test_defaults_in_words_read_as_those_in_numbers(name: str) -> None:
    text = " ".join(kvmenc(name, "--help").stdout.split())
    assert "[default: (" not in text
    assert text.count("[default: ") == text.count("default")


def test_names_of_hosts_are_not_torn() -> None:
    text = CliRunner().invoke(fakekvm, ["run", "--help"]).stdout
    assert max(map(len, text.splitlines())) <= 80
    listed = text.split("Hosts:\n")[1].split("\n\n")[0].split()
    assert listed == list(host_names())


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        ("sweep a.capture --svg a.capture", 2, "a.capture is given twice"),
        ("sweep a.capture --svg ./link", 2, "link is given twice"),
        ("report a.capture -o link", 2, "link is given twice"),
        ("dry-run --run new --stream new", 2, "new is given twice"),
        ("demo --backend fake -o new --record new", 2, "new is given twice"),
        ("report a.capture -o - --json", 2, "--json goes to stdout, where a file goes already"),
        ("sweep a.capture --svg /dev/fd/1 --csv", 2, "--csv goes to stdout, where a file goes"),
        ("demo --backend fake -o a.capture/new", 4, "a.capture/new: cannot be written: Not a dir"),
        ("probe --backend fake --record no/new", 4, "no/new: there is no folder no"),
        ("capture --qmp none -o /dev/null", 4, "/dev/null: it is no regular file, and what is"),
        ("capture --qmp none -o new --private bitmap", 2, "goes with --enc-revision NAME"),
        ("capture --qmp none -o new --private hypercalls", 2, "goes with --enc-log FILE"),
        ("capture --qmp none -o new --enc-log no.log", 4, "no.log: there is no such file"),
        ("capture --qmp none -o new --during-migration --trace no.log", 4, "no.log: there is no"),
        ("layout --qmp a.capture", 3, "a.capture: connecting by QMP: "),
        ("layout --qmp no.qmp", 3, "No such file or directory: start QEMU with -qmp unix:PATH"),
        # As a place without the right to look there: pathlib raises, where the tests are root too.
        (f"layout --qmp {TOO_LONG}", 3, "connecting by QMP: "),
        (f"stream {TOO_LONG}", 4, "File name too long"),
        (f"capture --qmp none -o new --enc-log {TOO_LONG}", 4, "or it cannot be read"),
        ("check-order --svg a.capture", 4, "a.capture: no pictures can be written there: it is no"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_done(
    capture: Path, words: str, status: int, complaint: str
) -> None:
    (capture.parent / "link").symlink_to(capture)
    before = capture.read_bytes()
    run = kvmenc(*words.split())
    assert (run.exit_code, run.stdout) == (status, "")
    assert complaint in run.stderr
    assert capture.read_bytes() == before
    assert {it.name for it in capture.parent.iterdir()} == {"a.capture", "link"}


@pytest.mark.parametrize(
    ("number", "says"),
    [
        (errno.EACCES, ["/dev/kvm does not open (EACCES): all of this is fake"]),
        (errno.ENODEV, ["/dev/kvm does not open (ENODEV): all of this is fake"]),
        (errno.ENOENT, []),
        (0, []),
    ],
)
def test_a_kvm_that_is_there_and_does_not_open_is_told(
    number: int, says: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    null, told = os.open("/dev/null", os.O_RDWR), list[str]()

    def opened(path: str, _flags: int) -> int:
        assert path == "/dev/kvm"
        if number:
            raise OSError(number, os.strerror(number))
        return null

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", opened)
        best = scratchrun.best_backend(told.append)
    if number:
        os.close(null)
    assert (best, told) == ("fake" if number else "local", says)
