"""What /proc says of processes that are known: ourselves and our children."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from kvmenc import procfs
from kvmenc.errors import HostError
from kvmenc.procfs import Mapping

NOBODYS_PID = int(Path("/proc/sys/kernel/pid_max").read_text()) + 1


def test_a_line_of_maps_is_read_as_the_kernel_writes_it() -> None:
    line = "7f0a1c000000-7f0a1c021000 r-xp 00026000 08:01 131 /usr/lib/a b.so (deleted)"
    start, end = 0x7F0A1C000000, 0x7F0A1C021000
    path = "/usr/lib/a b.so (deleted)"
    assert Mapping.parse(line) == Mapping(start, end, "r-xp", 0x26000, "08:01", 131, path)


def test_a_line_of_anonymous_memory_has_no_path() -> None:
    assert Mapping.parse("1000-3000 rw-s 00000000 00:00 0 ").path == ""


def test_our_own_mapping_of_a_file_is_among_them() -> None:
    page = mmap.PAGESIZE
    with tempfile.NamedTemporaryFile() as file:
        file.truncate(3 * page)
        inode = os.fstat(file.fileno()).st_ino
        with mmap.mmap(file.fileno(), page, offset=2 * page, access=mmap.ACCESS_READ):
            (found,) = [m for m in procfs.mappings(os.getpid()) if m.path == file.name]
    assert (found.end - found.start, found.offset) == (page, 2 * page)
    assert found.perms == "r--s"
    assert found.inode == inode


def test_mappings_ascend_and_do_not_overlap() -> None:
    found = procfs.mappings(os.getpid())
    assert len(found) > 10
    assert all(a.end <= b.start for a, b in pairwise(found))


def test_descriptors_are_told_by_what_they_are() -> None:
    with tempfile.NamedTemporaryFile() as file:
        assert procfs.fd_links(os.getpid())[file.fileno()] == file.name


def test_every_thread_is_listed_and_belongs_to_its_process() -> None:
    done, tids = threading.Event(), []

    def work() -> None:
        tids.append(threading.get_native_id())
        done.wait()

    thread = threading.Thread(target=work)
    thread.start()
    while not tids:
        pass
    listed = procfs.thread_ids(os.getpid())
    owner = procfs.tgid_of(tids[0])
    done.set()
    thread.join()
    assert {os.getpid(), tids[0]} <= set(listed)
    assert listed == sorted(listed)
    assert owner == os.getpid()


def test_start_times_tell_processes_apart_and_stay() -> None:
    ours = procfs.start_ticks(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert procfs.start_ticks(child.pid) >= ours
        assert procfs.state(child.pid) in {"R", "S", "D"}
    assert procfs.start_ticks(os.getpid()) == ours


def test_a_process_may_be_called_anything(tmp_path: Path) -> None:
    """The name stands in the middle of /proc/PID/stat, in parentheses."""
    program = tmp_path / ") S 1 (x"
    program.symlink_to("/bin/sleep")
    with subprocess.Popen([program, "60"]) as child:
        try:
            assert procfs.state(child.pid) in {"R", "S", "D"}
            assert procfs.start_ticks(child.pid) >= procfs.start_ticks(os.getpid())
        finally:
            child.kill()


def test_a_sleeping_thread_tells_its_system_call() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        words = None
        while not words or words[0] != 0:  # read(0, ...)
            words = procfs.thread_syscall(child.pid)
        assert words[1] == 0
        assert len(words) == 9


def test_status_lines_are_found_by_name() -> None:
    assert procfs.status_field(os.getpid(), "TracerPid") == "0"
    assert procfs.status_field(os.getpid(), "NoSuchLine") is None


@pytest.mark.parametrize(
    "look",
    [
        procfs.mappings,
        procfs.fd_links,
        procfs.thread_ids,
        procfs.start_ticks,
        procfs.state,
        procfs.status,
        procfs.tgid_of,
        procfs.thread_syscall,
    ],
)
def test_a_process_that_is_not_there_is_one_clear_line(look: object) -> None:
    assert callable(look)
    with pytest.raises(HostError) as caught:
        look(NOBODYS_PID)
    assert str(caught.value) == f"there is no process {NOBODYS_PID}"


def test_a_mapped_file_may_have_any_name() -> None:
    """The kernel escapes a newline in it; ``str.splitlines`` knows more of them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a\x1cb\x85c\u2028d\x0ce"
        path.write_bytes(bytes(mmap.PAGESIZE))
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
            assert str(path) in [it.path for it in procfs.mappings(os.getpid())]


def test_a_process_that_has_ended_maps_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert procfs.mappings(child.pid) == []


@pytest.mark.parametrize("text", ["", "7 (a) S 1", "7 (a) S " + "x " * 30])
def test_what_no_kernel_writes_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    (tmp_path / "stat").write_text(text)
    monkeypatch.setattr(procfs, "Path", lambda _path: tmp_path / "stat")
    with pytest.raises(HostError, match=r"^/proc/7/stat: not as Linux writes it: "):
        procfs.start_ticks(7)
