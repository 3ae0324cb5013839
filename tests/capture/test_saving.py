"""Saving leaves the old file or the whole new one, and nothing else, however it ends."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import IO

import msgspec
import pytest

from kvmenc.atomic import write_atomically
from kvmenc.capture import CurvePoint, load_capture, save_capture
from kvmenc.errors import CaptureError
from tests.capture.captures import sound_bitmaps, sound_capture
from tests.capture.killed import BEFORE, NEW

KILLS = 40
ROOT = Path(__file__).parents[2]

#: Whether the file of a capture has no name until it is whole.
NAMELESS = [True, False]


@pytest.fixture(params=NAMELESS, ids=["nameless", "beside"])
def nameless(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways of writing; a file system that has only one leaves the other out."""
    if not request.param:
        without_tmpfile(monkeypatch, errno.EOPNOTSUPP)
    return bool(request.param)


def without_tmpfile(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """A file system that does not know O_TMPFILE."""
    real_open = os.open

    def without(path: Path, flags: int, *rest: int) -> int:
        if flags & os.O_TMPFILE == os.O_TMPFILE:
            raise OSError(error, os.strerror(error))
        return real_open(path, flags, *rest)

    monkeypatch.setattr(os, "open", without)


def test_a_new_file_and_one_over_it(tmp_path: Path, nameless: bool) -> None:
    path = tmp_path / "a.capture"
    for source in ("first", "second"):
        capture = msgspec.structs.replace(sound_capture(), source=source)
        save_capture(capture, path, sound_bitmaps())
        assert load_capture(path) == capture
        assert list(tmp_path.iterdir()) == [path]


def test_a_new_file_is_as_readable_as_any_other(tmp_path: Path, nameless: bool) -> None:
    save_capture(sound_capture(), tmp_path / "a.capture")
    (tmp_path / "plain").write_bytes(b"")
    modes = {stat.S_IMODE(it.stat().st_mode) for it in tmp_path.iterdir()}
    assert len(modes) == 1


@pytest.mark.parametrize("error", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_a_file_system_without_nameless_files_will_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    without_tmpfile(monkeypatch, error)
    save_capture(sound_capture(), tmp_path / "a.capture")
    assert load_capture(tmp_path / "a.capture") == sound_capture()


def test_a_directory_that_may_not_be_written_is_no_reason_to_try_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_tmpfile(monkeypatch, errno.EACCES)
    with pytest.raises(CaptureError, match="cannot be written: Permission denied"):
        save_capture(sound_capture(), tmp_path / "a.capture")


def test_while_it_is_written_the_new_file_has_no_name(tmp_path: Path) -> None:
    names: list[Path] = []

    def write(file: IO[bytes]) -> None:
        file.write(b"x")
        names.extend(tmp_path.iterdir())

    write_atomically(tmp_path / "a", write)
    if any(name.suffix == ".part" for name in names):
        pytest.skip("the file system of the temporary directory has no O_TMPFILE")
    assert names == []
    assert (tmp_path / "a").read_bytes() == b"x"


def test_an_unsound_capture_never_reaches_the_disk(tmp_path: Path) -> None:
    unsound = msgspec.structs.replace(
        sound_capture(), curve=(CurvePoint(float("nan"), 1, 1),), windows=()
    )
    with pytest.raises(CaptureError, match="this capture is not sound"):
        save_capture(unsound, tmp_path / "a.capture")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("culprit", ["fsync", "link", "replace"])
def test_an_interrupted_save_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nameless: bool, culprit: str
) -> None:
    path = tmp_path / "a.capture"
    save_capture(sound_capture(), path)
    before = path.read_bytes()

    def interrupted(*_args: object, **_options: object) -> None:
        raise KeyboardInterrupt

    if culprit == "link" and not nameless:
        culprit = "replace"
    monkeypatch.setattr(Path if culprit == "replace" else os, culprit, interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_capture(msgspec.structs.replace(sound_capture(), source="other"), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"a\.capture: cannot be written: No such file"):
        save_capture(sound_capture(), tmp_path / "absent" / "a.capture")


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    """As root, renaming over a disk would take it away from everyone; tests/test_atomic.py."""
    with pytest.raises(CaptureError, match="cannot be written: Is a directory"):
        save_capture(sound_capture(), tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        with pytest.raises(CaptureError, match="cannot be written: what is there is no regular"):
            save_capture(sound_capture(), tmp_path / "socket")
    assert (tmp_path / "socket").is_socket()


@pytest.mark.parametrize("over_a_file", [False, True])
def test_a_save_killed_at_any_instant_leaves_a_whole_file_or_nothing(
    tmp_path: Path, over_a_file: bool
) -> None:
    program = [sys.executable, "-W", "ignore", "-m", "tests.capture.killed"]
    arguments = [str(tmp_path), str(KILLS), json.dumps(over_a_file)]
    run = subprocess.run(
        [*program, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")
    found = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(found) == KILLS
    before = BEFORE if over_a_file else None
    sources = [left.pop("a.capture", None) for left in found]
    assert sources[0] == before
    assert set(sources) <= {before, NEW}
    # Over a file a name can only be given by way of another one, for a moment.
    assert all(not left or (over_a_file and list(left.values()) == [NEW]) for left in found)
