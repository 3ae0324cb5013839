"""``--record FILE`` and ``--backend replay:FILE``: what commands say, and how they end."""

from __future__ import annotations

import errno
import json
import os
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result

from kvmenc.backend import LocalBackend
from kvmenc.backend.recordfile import load_recording
from kvmenc.backend.recordmodel import Ioctled
from kvmenc.cli import root
from tests.backend.recordings import rewritten
from tests.schemas.validator import faults
from tests.support import need_kvm

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from kvmenc.backend import Backend


def kvmenc(*arguments: str) -> Result:
    return CliRunner().invoke(root, arguments)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.recording"
    run = kvmenc("probe", "--backend", "fake", "--record", str(path))
    assert run.exit_code == 0, run.output
    return path


@pytest.mark.parametrize("backend", ["fake", pytest.param("local", marks=pytest.mark.kvm)])
def test_a_probe_prints_the_same_from_its_recording(backend: str, tmp_path: Path) -> None:
    if backend == "local":
        need_kvm()
    path, command = tmp_path / "a.recording", ("probe", "--self-test", "--json")
    live = kvmenc(*command, "--backend", backend, "--record", str(path))
    again = kvmenc(*command, "--backend", f"replay:{path}")
    assert again.exit_code == live.exit_code
    assert json.loads(again.stdout) == json.loads(live.stdout) | {"backend": f"{backend}, recorded"}


def test_a_measurement_prints_the_same_without_files_or_seconds(tmp_path: Path) -> None:
    path, command = tmp_path / "a.recording", ("probe", "--measure-firmware", "--json")
    live = kvmenc(*command, "--backend", "fake", "--seconds", "0.2", "--record", str(path))
    assert live.exit_code == 0, live.output
    again = kvmenc(*command, "--backend", f"replay:{path}")
    assert json.loads(again.stdout) == json.loads(live.stdout) | {"backend": "fake, recorded"}
    assert not faults(json.loads(live.stdout))
    other = kvmenc("probe", "--backend", f"replay:{path}")
    assert (other.exit_code, other.stdout) == (4, "")


def test_another_question_than_the_recorded_one_diverges(file: Path) -> None:
    run = kvmenc("probe", "--backend", f"replay:{file}", "--self-test")
    assert (run.exit_code, run.stdout) == (4, "")
    assert run.stderr.startswith(f"kvmenc: {file}: the replay diverges ")
    assert "called open(/dev/kvm, 0x2)" in run.stderr
    assert run.stderr.count("\n") == 1


def test_what_a_host_refused_is_recorded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_self: Backend, _path: str, _flags: int) -> int:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(LocalBackend, "open", refuse)
    path = tmp_path / "a.recording"
    live = kvmenc("probe", "--backend", "local", "--record", str(path))
    again = kvmenc("probe", "--backend", f"replay:{path}")
    assert live.exit_code == again.exit_code == 3
    assert again.stderr == live.stderr
    assert "EACCES" in live.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("--backend", "replay:"), 2, "'replay:' is none of [local|fake|replay:FILE]"),
        (("--backend", "Replay:x"), 2, "'Replay:x' is none of"),
        (("--backend", "replay:none"), 4, "kvmenc: none: cannot be read: No such file"),
        (
            ("--backend", "replay:/dev/null"),
            4,
            "kvmenc: /dev/null: not a usable recording: it is empty",
        ),
        (("--backend", "fake", "--record", "no/such"), 4, "no/such: there is no folder no"),
        (("--record-contents",), 2, "--record-contents goes with --record FILE"),
        (("--backend", "replay:x", "--record", "y"), 2, "--record goes without --backend replay"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], code: int, says: str) -> None:
    run = kvmenc("probe", *arguments)
    assert (run.exit_code, run.stdout) == (code, "")
    assert says in run.stderr


def test_a_file_that_was_changed_is_one_line_and_exit_code_4(file: Path) -> None:
    def change(lines: list[Any]) -> None:
        lines[2]["result"] = "12"

    rewritten(file, change)
    run = kvmenc("probe", "--backend", f"replay:{file}")
    assert (run.exit_code, run.stdout) == (4, "")
    assert run.stderr == (
        f"kvmenc: {file}: not a usable recording: line 3: Expected `int`, got `str` - at"
        " `$.result`\n"
    )


@pytest.mark.parametrize("contents", [False, True])
def test_contents_are_kept_if_asked_for_and_the_file_says_so(
    contents: bool, tmp_path: Path
) -> None:
    path = tmp_path / "a.recording"
    measure = ("probe", "--backend", "fake", "--measure-firmware", "--seconds", "0.1")
    wished = ("--record", str(path), *(["--record-contents"] if contents else []))
    assert kvmenc(*measure, *wished).exit_code == 0
    recording = load_recording(path)
    assert recording.header.contents == contents
    packets = [
        piece
        for call in recording.calls
        if isinstance(call, Ioctled)
        for name, piece in call.after.items()
        if name.endswith("trans_uaddr")
    ]
    assert packets
    assert {piece.data is not None for piece in packets} == {contents}


@pytest.mark.parametrize("command", ["probe", "demo", "plan"])
def test_every_command_with_a_backend_takes_a_replay(command: str, file: Path) -> None:
    assert "replay:FILE" in kvmenc(command, "--help").stdout
    run = kvmenc(command, "--backend", f"replay:{file.parent / 'none'}")
    assert run.exit_code == 4
    assert "cannot be read" in run.stderr


def test_a_recording_is_not_left_by_a_command_that_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(LocalBackend, "open", interrupt)
    path = tmp_path / "a.recording"
    run = kvmenc("probe", "--backend", "local", "--record", str(path))
    assert run.exit_code == 130
    assert not path.exists()
