"""Slot ids learned from a real QEMU's trace, against what it traced since its start."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import HostError, InputError
from kvmenc.qemu.dirtyrate import DirtyRate
from kvmenc.qemu.facts import Facts, read_facts
from kvmenc.qemu.join import from_mtree, from_trace
from kvmenc.qemu.live import read_layout
from kvmenc.qemu.mtree import parse_mtree
from kvmenc.qemu.qmp import Qmp
from kvmenc.qemu.ramblock import parse_ramblock
from kvmenc.qemu.slotids import SlotTrace, with_numbers
from kvmenc.qemu.text import read_text
from kvmenc.qemu.trace import parse_trace
from tests.qemu.guest import Guest
from tests.qemu.logged import (
    Logged,
    Pipe,
    comes_to_have_open,
    events_on,
    files_of,
    left_files,
    say_something,
)
from tests.qemu.machine import Machine
from tests.qemu.setup import PROGRAM, SANDBOX, Setup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvmenc.memory.layout import Layout

pytestmark = pytest.mark.qemu


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture(params=["pc", "q35", "microvm"])
def traced(request: pytest.FixtureRequest, tmp_path: Path, log: Path) -> Iterator[Machine]:
    """Traces its slots from the start on."""
    setup = Setup(extra=("-trace", "enable=kvm_set_user_memory", "-D", str(log)))
    with Machine(tmp_path / "vm", Guest(1), request.param, setup) as machine:
        yield machine


def numbered(monitor: Qmp, facts: Facts) -> Layout:
    rate = DirtyRate(monitor)
    layout = read_layout(monitor).layout
    with SlotTrace(monitor, facts) as trace:
        rate.start(1)
        found = trace.numbered(layout)
    rate.wait()
    return found


def test_the_slots_are_those_that_qemu_traced_since_its_start(traced: Machine, log: Path) -> None:
    with Qmp(traced.second_socket) as qmp:
        found = numbered(qmp, read_facts(qmp))
        assert events_on(qmp) == {"kvm_set_user_memory"}
    told = {it.slot.key: it.slot for it in parse_trace(read_text(log))}
    ids = {slot.key: (slot.base_gfn, slot.npages, slot.userspace_addr) for slot in found.slots}
    assert ids == {
        key: (slot.base_gfn, slot.npages, slot.userspace_addr) for key, slot in told.items()
    }
    assert all(slot.log_dirty for slot in found.slots)
    assert not any(slot.log_dirty for slot in told.values())


def test_the_trace_and_the_mtree_tell_the_same_layout(traced: Machine) -> None:
    with Qmp(traced.second_socket) as qmp:
        rate = DirtyRate(qmp)
        views = parse_mtree(qmp.monitor("info mtree -f"))
        blocks = parse_ramblock(qmp.monitor("info ramblock"))
        expected = from_mtree(views, blocks, qmp.host_addr).layout
        with SlotTrace(qmp, read_facts(qmp)) as trace:
            rate.start(1)
            joined = from_trace(trace.slots(expected), blocks, views)
        rate.wait()
    assert joined.ids_known
    assert joined.left_out == ()
    pieces = {
        (it.slot.as_id, it.slot.base_gfn, it.npages, it.block.name, it.block_page, it.alias)
        for slot in joined.layout.slots
        for it in joined.layout.pieces_of(slot)
    }
    assert pieces == {
        (it.slot.as_id, it.slot.base_gfn, it.npages, it.block.name, it.block_page, it.alias)
        for slot in expected.slots
        for it in expected.pieces_of(slot)
    }


def test_a_displays_memory_that_was_logged_all_along_is_numbered_too(
    tmp_path: Path, log: Path
) -> None:
    """Its base address is set as a BIOS would do: through the ports of PCI configuration."""
    extra = ("-device", "VGA,addr=2", "-trace", "enable=kvm_set_user_memory", "-D", str(log))
    with Machine(tmp_path / "vm", Guest(1), setup=Setup(extra=extra)) as machine:
        for register, value in ((0x10, 0xFD000000), (0x04, 2)):
            machine.monitor(f"o /w 0xcf8 {0x80001000 | register:#x}")
            machine.monitor(f"o /w 0xcfc {value:#x}")
        start = log.stat().st_size
        with Qmp(machine.second_socket) as qmp:
            found = numbered(qmp, read_facts(qmp))
    [told] = [it.slot for it in parse_trace(read_text(log)) if it.slot.base_gfn == 0xFD000]
    [display] = [slot for slot in found.slots if slot.base_gfn == 0xFD000]
    assert (display.key, display.npages) == (told.key, 4096)
    assert not display.log_dirty, "its bits are the display's, which clears them"
    assert "gpa=0xfd000000" not in log.read_text()[start:], "QEMU traced it anew: no such case"


def test_a_log_without_a_start_is_given_up_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmenc.qemu.slotids._PATIENCE_S", 0.2)
    with Machine(tmp_path / "vm", Guest(1)) as machine, Qmp(machine.second_socket) as qmp:
        layout = read_layout(qmp).layout
        with (
            SlotTrace(qmp, read_facts(qmp)) as trace,
            pytest.raises(HostError, match=r"did not tell the numbers of 6 of 6 slots within 0\.2"),
        ):
            trace.slots(layout)


def test_manual_protect_shows_once_the_log_is_started(tmp_path: Path) -> None:
    with Machine(tmp_path / "vm", Guest(1)) as machine, Qmp(machine.second_socket) as qmp:
        rate = DirtyRate(qmp)
        with SlotTrace(qmp, read_facts(qmp)) as trace:
            assert not trace.shows_manual_protect(0.1)
            rate.start(1)
            assert trace.shows_manual_protect()


def test_a_trace_of_another_qemu_is_refused(tmp_path: Path) -> None:
    with (
        Machine(tmp_path / "one", Guest(1)) as one,
        Machine(tmp_path / "other", Guest(1)) as other,
        Qmp(one.second_socket) as qmp,
        Qmp(other.second_socket) as other_qmp,
    ):
        rate = DirtyRate(qmp)
        layout, of_other = read_layout(qmp).layout, read_layout(other_qmp).layout
        with SlotTrace(qmp, read_facts(qmp)) as trace:
            rate.start(1)
            slots = trace.slots(layout)
    with pytest.raises(InputError, match="of another QEMU, or not up to date"):
        with_numbers(of_other, slots)


def test_a_log_to_a_file_stays_there_and_loses_nothing(traced: Machine, log: Path) -> None:
    before = log.read_text()
    with Qmp(traced.second_socket) as qmp:
        files = files_of(traced.pid)
        numbered(qmp, read_facts(qmp))
        assert comes_to_have_open(traced.pid, files)
        kept = log.read_text()
        assert kept.startswith(before)
        say_something(qmp)
    assert "handle_qmp_command" in log.read_text()[len(kept) :]
    assert left_files(traced.pid) == []


@pytest.mark.parametrize("extra", [("-sandbox", SANDBOX), ("as nobody",), ("-msg", "timestamp=on")])
def test_a_log_to_a_pipe_goes_there_again(tmp_path: Path, extra: tuple[str, ...]) -> None:
    """QEMU under another user may not open the pipe anew, unless it is helped."""
    if extra == ("as nobody",):
        usage = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True)
        is_old = "-runas " in usage.stdout  # before QEMU 10.0
        extra = ("-runas", "nobody") if is_old else ("-run-with", "user=nobody")
    with Pipe() as pipe, Logged(tmp_path / "vm", pipe.theirs, *extra) as qemu:
        files = files_of(qemu.pid)
        found = numbered(qemu.qmp, read_facts(qemu.qmp))
        assert len(found.slots) == 6
        assert events_on(qemu.qmp) == set()
        assert comes_to_have_open(qemu.pid, files)
        assert left_files(qemu.pid) == []
        assert "kvm_set_user_memory" not in pipe.read()
        say_something(qemu.qmp)
        assert "handle_qmp_command" in pipe.read()


def test_a_daemon_that_logs_nowhere_does_so_again(tmp_path: Path) -> None:
    with Pipe() as pipe, Logged(tmp_path / "vm", pipe.theirs, "-daemonize") as qemu:
        files = files_of(qemu.pid)
        assert len(numbered(qemu.qmp, read_facts(qemu.qmp)).slots) == 6
        assert events_on(qemu.qmp) == set()
        assert comes_to_have_open(qemu.pid, files)
        assert left_files(qemu.pid) == []


def test_a_log_to_a_socket_is_taken_only_if_nothing_is_logged(tmp_path: Path) -> None:
    with Pipe(sockets=True) as pipe, Logged(tmp_path / "vm", pipe.theirs) as qemu:
        assert len(numbered(qemu.qmp, read_facts(qemu.qmp)).slots) == 6
    with (
        Pipe(sockets=True) as pipe,
        Logged(tmp_path / "busy", pipe.theirs, "-d", "guest_errors") as qemu,
    ):
        with (
            pytest.raises(HostError, match="to a socket, which it could not open again"),
            SlotTrace(qemu.qmp, read_facts(qemu.qmp)),
        ):
            pytest.fail("it was taken")
        assert (events_on(qemu.qmp), left_files(qemu.pid)) == (set(), [])
        pipe.read()
        say_something(qemu.qmp)
        assert "handle_qmp_command" in pipe.read()


def test_a_qemu_that_may_not_log_to_a_file_of_ours_keeps_its_own(tmp_path: Path) -> None:
    """It logs each thread apart, and QEMU does not let go of that."""
    logs = tmp_path / "log-%d"
    arguments = ("-d", "tid", "-D", str(logs))
    with Pipe() as pipe, Logged(tmp_path / "vm", pipe.theirs, *arguments) as qemu:
        with (
            pytest.raises(HostError, match="is no file that it has open"),
            SlotTrace(qemu.qmp, read_facts(qemu.qmp)),
        ):
            pytest.fail("it was taken")
        assert (events_on(qemu.qmp), left_files(qemu.pid)) == (set(), [])


def test_a_second_kvmenc_is_kept_out_while_the_first_is_at_it(tmp_path: Path) -> None:
    with Pipe() as pipe, Logged(tmp_path / "vm", pipe.theirs) as qemu:
        facts = read_facts(qemu.qmp)
        with SlotTrace(qemu.qmp, facts):
            with (
                pytest.raises(HostError, match="another kvmenc is reading this QEMU's log"),
                SlotTrace(qemu.qmp, facts),
            ):
                pytest.fail("it was let in")
            assert "kvm_set_user_memory" in events_on(qemu.qmp)
        assert (events_on(qemu.qmp), left_files(qemu.pid)) == (set(), [])


def test_a_qemu_that_ends_meanwhile_leaves_no_file(tmp_path: Path) -> None:
    with Pipe() as pipe, Logged(tmp_path / "vm", pipe.theirs) as qemu:
        with SlotTrace(qemu.qmp, read_facts(qemu.qmp)):
            assert len(left_files(qemu.pid)) == 2
            qemu.end()
        assert left_files(qemu.pid) == []
