"""Files that appear whole, and names over which no file may be put."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import pytest

from kvmenc.atomic import check_writable, names_stdout, write_atomically

#: Prints, then writes to the file that it is given, then prints again.
PROGRAM = """
import sys
from pathlib import Path
from kvmenc.atomic import check_writable, write_atomically
print("before", flush=True)
check_writable(Path(sys.argv[1]))
write_atomically(Path(sys.argv[1]), lambda file: file.write(b"whole\\n"))
print("after")
"""


def whole(file: IO[bytes]) -> None:
    file.write(b"whole")


@pytest.fixture
def stdout_link(tmp_path: Path) -> Path:
    """What /dev/stdout is, where nobody else misses it."""
    link = tmp_path / "stdout"
    link.symlink_to("/proc/self/fd/1")
    return link


@pytest.mark.parametrize("name", ["{link}", "/dev/fd/1", "/proc/self/fd/1"])
def test_a_name_of_stdout_is_never_replaced_and_goes_where_stdout_does(
    stdout_link: Path, tmp_path: Path, name: str
) -> None:
    command = [sys.executable, "-c", PROGRAM, name.format(link=stdout_link)]
    file = tmp_path / "log"
    file.write_text("old\n")
    with file.open("a") as appended:
        subprocess.run(command, stdout=appended, check=True)
    assert file.read_text() == "old\nbefore\nwhole\nafter\n"
    piped = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert piped.stdout == b"before\nwhole\nafter\n"
    assert stdout_link.readlink() == Path("/proc/self/fd/1")
    assert {it.name for it in tmp_path.iterdir()} == {"stdout", "log"}


def test_which_names_are_of_stdout(stdout_link: Path, tmp_path: Path) -> None:
    assert names_stdout(stdout_link)
    assert names_stdout(Path("/dev/fd/1"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "1").touch()
    for other in ("loop", "1", "absent"):
        assert not names_stdout(tmp_path / other)
    assert not names_stdout(Path("/proc/self/fd/2"))


def test_a_fifo_and_a_device_are_written_into(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    check_writable(fifo)
    write_atomically(fifo, whole)
    reader.join(30)
    assert read == [b"whole"]
    assert fifo.is_fifo()
    check_writable(Path("/dev/null"))
    write_atomically(Path("/dev/null"), whole)
    assert Path("/dev/null").is_char_device()
    with pytest.raises(OSError, match="No space left"):
        write_atomically(Path("/dev/full"), whole)


def test_a_link_stays_and_what_it_leads_to_is_new(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "latest").symlink_to("folder/file")
    for _ in range(2):  # at first it leads nowhere
        write_atomically(tmp_path / "latest", whole)
        assert (tmp_path / "latest").is_symlink()
        assert [it.name for it in (tmp_path / "folder").iterdir()] == ["file"]
        assert (tmp_path / "folder" / "file").read_bytes() == b"whole"
        (tmp_path / "folder" / "file").write_text("old")


def test_what_only_its_owner_may_read_stays_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch(0o600)
    write_atomically(file, whole)
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("path", "error"),
    [(".", IsADirectoryError), ("absent/a", FileNotFoundError), ("file/a", NotADirectoryError)],
)
def test_what_cannot_be_written_is_known_before(
    tmp_path: Path, path: str, error: type[OSError]
) -> None:
    (tmp_path / "file").touch()
    for call in (check_writable, lambda it: write_atomically(it, whole)):
        with pytest.raises(error):
            call(tmp_path / path)
    check_writable(tmp_path / "new")
    assert [it.name for it in tmp_path.iterdir()] == ["file"]
