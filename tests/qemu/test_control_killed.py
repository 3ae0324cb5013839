"""A kvmenc killed while it learns slot ids: the next one puts everything back."""

from __future__ import annotations

import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kvmenc.qemu.borrowed import recover
from kvmenc.qemu.facts import read_facts
from kvmenc.qemu.slotids import SlotTrace
from tests.qemu.logged import (
    Logged,
    Pipe,
    comes_to_have_open,
    events_on,
    files_of,
    left_files,
    say_something,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.qemu

#: Borrows the log of the QEMU at a socket, and dies before the command of a number.
_DIES = """
import os, sys
from pathlib import Path
from kvmenc.qemu.borrowed import BorrowedLog
from kvmenc.qemu.qmp import Qmp

class Dying(Qmp):
    left = int(sys.argv[3])

    def execute(self, command, **arguments):
        if self.left == 0:
            os.kill(os.getpid(), 9)
        self.left -= 1
        return super().execute(command, **arguments)

with Dying(Path(sys.argv[1])) as qmp:
    with BorrowedLog(qmp, int(sys.argv[2]), ["kvm_set_user_memory", "kvm_clear_dirty_log"]):
        pass
"""


def dies_at(command: int, qemu: Logged, socket: Path) -> bool:
    """Whether it comes to that command."""
    arguments = [str(socket), str(qemu.pid), str(command)]
    ended = subprocess.run([sys.executable, "-c", _DIES, *arguments], timeout=60, check=False)
    assert ended.returncode in {0, -signal.SIGKILL}
    return ended.returncode != 0


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    with Pipe() as pipe:
        yield pipe


@pytest.fixture
def second(tmp_path: Path) -> Path:
    return tmp_path / "second"


@pytest.fixture
def qemu(pipe: Pipe, second: Path, tmp_path: Path) -> Iterator[Logged]:
    more = ("-qmp", f"unix:{second},server=on,wait=off")
    with Logged(tmp_path / "vm", pipe.theirs, *more) as qemu:
        yield qemu


def test_whenever_it_is_killed_the_next_one_puts_all_back(
    qemu: Logged, second: Path, pipe: Pipe
) -> None:
    files, last = files_of(qemu.pid), 0
    left: set[int] = set()
    while dies_at(last, qemu, second):
        left.add(found := len(left_files(qemu.pid)))
        assert recover(qemu.qmp, qemu.pid) == (found > 0)
        assert not recover(qemu.qmp, qemu.pid)
        assert events_on(qemu.qmp) == set()
        assert comes_to_have_open(qemu.pid, files)
        assert left_files(qemu.pid) == []
        pipe.read()
        say_something(qemu.qmp)
        assert "handle_qmp_command" in pipe.read()
        last += 1
    assert left == {0, 1, 2}, "with nothing, the journal, and the log beside it"
    assert last > 12


def test_the_next_one_needs_no_more_than_to_begin(qemu: Logged, second: Path) -> None:
    assert dies_at(12, qemu, second)
    assert events_on(qemu.qmp)
    assert left_files(qemu.pid)
    with SlotTrace(qemu.qmp, read_facts(qemu.qmp)):
        assert "kvm_clear_dirty_log" in events_on(qemu.qmp)
    assert (events_on(qemu.qmp), left_files(qemu.pid)) == (set(), [])
