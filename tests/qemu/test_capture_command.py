"""``kvmenc capture`` on a real QEMU, as its users run it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from kvmenc.capture import load_capture, open_capture
from kvmenc.memory.words import count
from tests.cli.test_root import MAIN, kvmenc
from tests.qemu.guest import Guest, Writer
from tests.qemu.machine import Machine
from tests.schemas.validator import faults
from tests.support import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.qemu

WRITER = Writer(2016, 504, 20)
NOBODY = 65534


@pytest.fixture
def qemu(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path / "vm", Guest(100, writer=WRITER)) as machine:
        yield machine


def capture(qemu: Machine, output: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return kvmenc("capture", "--qmp", str(qemu.second_socket), "-o", str(output), *options)


def test_a_capture_is_shown_when_it_is_made_and_can_be_shown_and_planned_again(
    qemu: Machine, tmp_path: Path
) -> None:
    file = tmp_path / "a.capture"
    made = capture(qemu, file, "--seconds", "1")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout == kvmenc("show", str(file)).stdout
    assert kvmenc("plan", str(file), "--max-bandwidth", "1GB/s").returncode == 0
    found = load_capture(file)
    assert found.curve[-1].shared_pages == WRITER.pages
    assert found.provenance is not None
    assert (found.provenance.how, found.provenance.vm_kind) == ("peek", "plain")
    assert {slot.slot_id for slot in found.slots} >= {0, 1, 2}
    assert found.costs is not None
    assert found.costs.stop_count


def test_json_is_what_show_gives(qemu: Machine, tmp_path: Path) -> None:
    file = tmp_path / "a.capture"
    made = capture(qemu, file, "--seconds", "1", "--json")
    assert (made.returncode, made.stderr) == (0, "")
    report: dict[str, Any] = json.loads(made.stdout)
    assert not faults(report)
    assert report == json.loads(kvmenc("show", str(file), "--json").stdout)


def test_contents_are_not_read_where_they_must_not(qemu: Machine, tmp_path: Path) -> None:
    file = tmp_path / "a.capture"
    assert capture(qemu, file, "--seconds", "2", "--no-contents").returncode == 0
    with open_capture(file) as found:
        assert {block.zero_pages for block in found.capture.blocks} == {None}
        assert found.capture.device is None
        assert "zero" not in found.kinds("pc.ram")


def test_a_log_of_announcements_says_what_is_private(qemu: Machine, tmp_path: Path) -> None:
    log, file = tmp_path / "log", tmp_path / "a.capture"
    log.write_text(
        "kvm_convert_memory start 0x0 size 0x4000000 shared_to_private\n"
        "kvm_convert_memory start 0x2000000 size 0x1000000 private_to_shared\n"
    )
    made = capture(qemu, file, "--seconds", "1", "--enc-log", str(log))
    assert (made.returncode, made.stderr) == (0, "")
    with open_capture(file) as found:
        [ram] = [block for block in found.capture.blocks if block.name == "pc.ram"]
        assert ram.private_pages == 16384 - 4096
        assert count(found.bitmap("private", "pc.ram"), ram.npages) == ram.private_pages
        last = found.capture.curve[-1]
        assert last.private_pages + last.shared_pages == WRITER.pages
        assert last.private_pages > 0 < last.shared_pages


def test_the_kernels_bitmap_is_asked_for_by_name_and_this_kernel_has_none(
    qemu: Machine, tmp_path: Path
) -> None:
    made = capture(qemu, tmp_path / "a.capture", "--enc-revision", "v2-2019")
    assert made.returncode == 3
    assert made.stderr.count("\n") == 1
    assert "does not offer revision v2-2019" in made.stderr
    assert not (tmp_path / "a.capture").exists()


def test_without_the_right_to_look_one_number_at_a_time_is_asked_of_qemu(
    qemu: Machine, tmp_path: Path
) -> None:
    need(os.geteuid() == 0, "only root can become nobody", "KVMENC_REQUIRE_KVM")
    open_to_all(qemu.second_socket)
    code = f"""
import os, sys
from pathlib import Path
import kvmenc.watch.run
kvmenc.package_version()  # what is imported late, nobody may not read
from kvmenc.capture import save_capture
from kvmenc.qemu.qmp import Qmp
from kvmenc.watch.wishes import Wishes
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
with Qmp(Path({str(qemu.second_socket)!r})) as monitor:
    watched = kvmenc.watch.run.watch(monitor, Wishes(seconds=2), lambda *_: None)
assert not watched.bitmaps
sys.stdout.write(watched.capture.notes[0] + "\\n" + repr(watched.capture.curve[-1].shared_pages))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    note, pages = done.stdout.splitlines()
    assert "CAP_SYS_PTRACE" in note
    assert abs(int(pages) - WRITER.pages) <= 256, "as fine as a MiB/s"


def open_to_all(socket: Path) -> None:
    socket.chmod(0o777)
    for folder in socket.parents[: len(socket.parents) - 2]:
        folder.chmod(folder.stat().st_mode | 0o055)


def started(qemu: Machine, output: Path, seconds: int) -> subprocess.Popen[str]:
    """A capture that has looked at least once."""
    command = [*MAIN, "capture", "--qmp", str(qemu.second_socket), "-o", str(output)]
    process = subprocess.Popen(
        [*command, "--seconds", str(seconds)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    long_s = seconds // 2  # what the long window has of it, at least
    qemu.wait_for("the window", lambda: is_on(qemu, at_least_s=long_s))
    time.sleep(1.5)
    return process


def is_on(qemu: Machine, at_least_s: int = 0) -> bool:
    """Whether the dirty log is on, for so long."""
    answer = msgspec.convert(qemu.command("query-dirty-rate"), dict[str, Any])
    return bool(answer["status"] == "measuring" and answer["calc-time"] >= at_least_s)


def test_ctrl_c_leaves_what_was_seen_and_no_more(qemu: Machine, tmp_path: Path) -> None:
    process = started(qemu, tmp_path / "a.capture", 30)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr == "kvmenc: interrupted\n"
    found = load_capture(tmp_path / "a.capture")
    assert found.windows[0].ended_by == "interrupted"
    assert found.curve[-1].shared_pages == WRITER.pages


def test_a_killed_capture_leaves_no_file_and_the_next_one_finds_all_in_order(
    qemu: Machine, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    process = started(qemu, folder / "a.capture", 3)
    process.kill()
    process.communicate(timeout=30)
    assert list(folder.iterdir()) == []
    qemu.wait_for("the log to go off", lambda: not is_on(qemu))
    made = capture(qemu, folder / "a.capture", "--seconds", "1")
    assert (made.returncode, made.stderr) == (0, "")


def test_a_qemu_that_exits_midway_is_said_and_what_was_seen_is_kept(
    qemu: Machine, tmp_path: Path
) -> None:
    process = started(qemu, tmp_path / "a.capture", 20)
    os.kill(qemu.pid, signal.SIGKILL)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 3
    assert stderr.count("\n") == 1
    assert load_capture(tmp_path / "a.capture").windows[0].ended_by == "vm-gone"


def test_another_measurement_is_not_disturbed(qemu: Machine, tmp_path: Path) -> None:
    qemu.command("calc-dirty-rate", calc_time=30, mode="dirty-bitmap")
    made = capture(qemu, tmp_path / "a.capture")
    assert made.returncode == 3
    assert made.stderr.count("\n") == 1
    assert "being measured already" in made.stderr


def test_a_wrong_pid_is_refused(qemu: Machine, tmp_path: Path) -> None:
    for pid in (os.getpid(), 2**22 + 1):
        made = capture(qemu, tmp_path / "a.capture", "--pid", str(pid))
        assert made.returncode == 3
        assert made.stderr.count("\n") == 1


def test_a_paused_guest_is_captured_and_that_is_said(qemu: Machine, tmp_path: Path) -> None:
    qemu.command("stop")
    file = tmp_path / "a.capture"
    made = capture(qemu, file, "--seconds", "1")
    assert (made.returncode, made.stderr) == (0, "")
    assert load_capture(file).curve[-1].shared_pages == 0
    assert "not running (paused)" in " ".join(made.stdout.split())
    qemu.command("cont")


def test_options_that_do_not_go_together(tmp_path: Path) -> None:
    for options in (
        ("-o", "x"),
        ("--qmp", "a", "--domain", "b", "-o", "x"),
        ("--qmp", "a", "-o", "x", "--trace", "t"),
        ("--qmp", "a"),
        ("--qmp", "a", "-o", "x", "--seconds", "0"),
    ):
        assert kvmenc("capture", *options).returncode == 2, options


def test_a_place_that_cannot_be_written_is_said_before_anything_is_done(tmp_path: Path) -> None:
    for output in (tmp_path, tmp_path / "absent" / "a.capture"):
        made = kvmenc("capture", "--qmp", "/nowhere", "-o", str(output))
        assert made.returncode == 4
        assert made.stderr.startswith(f"kvmenc: {output}: ")
