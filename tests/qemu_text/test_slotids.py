"""Slot ids from traced lines, and a log that is borrowed, without a QEMU."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import HostError, InputError
from kvmenc.memory.slots import MemSlot
from kvmenc.procfs import start_ticks
from kvmenc.qemu.borrowed import BorrowedLog, recover
from kvmenc.qemu.journal import Journal
from kvmenc.qemu.slotids import traced_slots
from kvmenc.qemu.text import MAX_LINE
from tests.qemu_text.servers import ToldQemu

if TYPE_CHECKING:
    from collections.abc import Iterator

RAM = MemSlot(0, 0, 16, 0x7F0000000000)
DISPLAY = MemSlot(1, 256, 16, 0x7E0000000000)
SMRAM = MemSlot(2, 0, 16, 0x7F0000000000, as_id=1)
LOGGED = "kvm_set_user_memory Slot#{} flags=0x1 gpa={:#x} size=0x10000 ua={:#x} ret=0"
CLEARED = "kvm_clear_dirty_log slot#{} start 0x0 size 0x10"


def told(*slots: tuple[int, MemSlot]) -> list[str]:
    return [LOGGED.format(n, slot.base_gfn << 12, slot.userspace_addr) for n, slot in slots]


def ids(lines: list[str], *expected: MemSlot) -> dict[tuple[int, int], int]:
    """Slot ids, by address space and first gfn."""
    found = traced_slots("qmp", lines, expected)
    assert all(it.slot.log_dirty for it in found.values())
    return {place[:2]: it.slot.slot_id for place, it in found.items()}


def test_slots_are_found_by_their_place() -> None:
    lines = told((7, RAM), (3, DISPLAY), ((1 << 16) + 5, SMRAM))
    assert ids(lines, RAM, DISPLAY, SMRAM) == {(0, 0): 7, (0, 256): 3, (1, 0): 5}


def test_a_log_that_is_off_again_tells_as_much() -> None:
    lines = told((7, RAM))
    assert ids([*lines, lines[0].replace("flags=0x1", "flags=0x0")], RAM) == {(0, 0): 7}


def test_a_slot_that_is_gone_is_not_found() -> None:
    gone = LOGGED.format(7, 0, RAM.userspace_addr).replace("0x10000", "0x0")
    assert ids([*told((7, RAM)), gone], RAM) == {}


def test_a_call_that_kvm_refused_tells_nothing() -> None:
    assert ids([told((7, RAM))[0].replace("ret=0", "ret=-22")], RAM) == {}


def test_what_was_logged_all_along_is_found_by_its_clearing() -> None:
    lines = [*told((7, RAM)), CLEARED.format(7), CLEARED.format(9)]
    assert ids(lines, RAM, DISPLAY) == {(0, 0): 7, (0, 256): 9}
    of_smram = [*told((7, RAM)), CLEARED.format((1 << 16) + 9)]
    assert ids(of_smram, RAM, SMRAM) == {(0, 0): 7, (1, 0): 9}


@pytest.mark.parametrize(
    "line",
    [
        CLEARED.format(9).replace("start 0x0", "start 0x40"),
        CLEARED.format(9).replace("size 0x10", "size 0xf"),
        CLEARED.format((1 << 16) + 9),
        "kvm_clear_dirty_log slot#9 start 0x0 size 0x10 and more",
    ],
)
def test_a_clearing_of_anything_else_tells_nothing(line: str) -> None:
    assert ids([*told((7, RAM)), line], RAM, DISPLAY) == {(0, 0): 7}


def test_two_slots_of_one_size_are_not_guessed() -> None:
    """Nor is one of them, while the line of the other has not come yet."""
    assert ids([CLEARED.format(8), CLEARED.format(9)], RAM, DISPLAY) == {}
    assert ids([CLEARED.format(9)], RAM, DISPLAY) == {}
    assert ids([CLEARED.format(8), CLEARED.format(9)], DISPLAY) == {}


def test_lines_of_others_are_passed_over() -> None:
    lines = ["", "x" * (MAX_LINE + 1), "\ufffd", "kvm_set_user_memory" + "x" * MAX_LINE]
    assert ids([*lines, *told((7, RAM))], RAM) == {(0, 0): 7}


def test_a_traced_slot_that_makes_no_sense_is_named() -> None:
    with pytest.raises(InputError, match="qmp: log, line 1: no kvm_set_user_memory that is known"):
        traced_slots("qmp", ["kvm_set_user_memory Slot#x"], [RAM])


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """Something that lives, with a pipe for stderr."""
    with subprocess.Popen(["sleep", "60"], stderr=subprocess.PIPE) as process:
        yield process
        process.kill()


def told_qemu(log_answer: object = "", **states: str) -> ToldQemu:
    """A QEMU with trace events, which logs nowhere that can be found."""
    on = {**dict.fromkeys(("handle_qmp_command", "an_event"), "disabled"), **states}

    def switch(*, name: str, enable: bool) -> object:
        on[name] = "enabled" if enable else "disabled"
        return {}

    qemu = ToldQemu(
        {
            "trace-event-get-state": lambda *, name: [{"name": name, "state": on[name]}],
            "trace-event-set-state": switch,
            "query-version": {},
            "human-monitor-command": log_answer,
        }
    )
    qemu.answers["states"] = lambda: dict(on)
    return qemu


def refusing_ours(*, command_line: str) -> str:
    return "Error: Permission denied\r\n" if ".log" in command_line else ""


def left(process: subprocess.Popen[bytes]) -> list[Path]:
    return list(Path("/tmp").glob(f"kvmenc-{process.pid}-*"))


@pytest.mark.parametrize(
    ("qemu", "why"),
    [
        (told_qemu(), "another trace backend than `log`"),
        (told_qemu(refusing_ours), "QEMU may not log where it is to be read: Error: Permission"),
        (told_qemu(an_event="unavailable"), "built without trace event an_event"),
    ],
)
def test_a_qemu_that_cannot_trace_is_left_as_it_was(
    process: subprocess.Popen[bytes], qemu: ToldQemu, why: str
) -> None:
    before = qemu.execute("states")
    with pytest.raises(HostError, match=why), BorrowedLog(qemu, process.pid, ["an_event"]):
        pytest.fail("it was borrowed")
    assert qemu.execute("states") == before
    assert left(process) == []


def test_a_qemu_that_cannot_log_anywhere_any_more_is_said(
    process: subprocess.Popen[bytes],
) -> None:
    qemu = told_qemu("Error opening logfile: Permission denied\r\n")
    lost = pytest.raises(HostError, match="told: QEMU cannot log to where it did: Error opening")
    with lost as caught, BorrowedLog(qemu, process.pid, ["an_event"]):
        pytest.fail("it was borrowed")
    assert "QEMU may not log where it is to be read" in str(caught.value.__context__)
    assert left(process) == []


def test_a_journal_is_resumed_by_the_next_one_only(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path) as first:
        first.begin(b"what was")
        with Journal(path) as second, pytest.raises(HostError, match="another kvmenc"):
            second.begin(b"")
        with Journal(path) as second, pytest.raises(HostError, match="another kvmenc"):
            second.resume()
    with Journal(path) as third:
        assert third.resume() == b"what was"
        third.forget()
    with Journal(path) as fourth:
        assert fourth.resume() is None


def test_a_journal_of_somebody_else_is_not_trusted(tmp_path: Path) -> None:
    path, target = tmp_path / "journal", tmp_path / "target"
    target.write_bytes(b"evil")
    path.symlink_to(target)
    with Journal(path) as journal, pytest.raises(HostError, match="journal: ELOOP"):
        journal.resume()
    with Journal(path) as journal, pytest.raises(HostError, match=r"another kvmenc|ELOOP"):
        journal.begin(b"")
    assert target.read_bytes() == b"evil"
    if os.geteuid() == 0:
        os.chown(target, 65534, 65534)
        with Journal(target) as journal, pytest.raises(HostError, match="not a journal of this"):
            journal.resume()


def test_a_journal_that_was_cut_off_means_that_nothing_was_changed(
    process: subprocess.Popen[bytes],
) -> None:
    path = Path(f"/tmp/kvmenc-{process.pid}-{start_ticks(process.pid)}.journal")
    path.write_bytes(b'{"events"')
    qemu = told_qemu()
    assert recover(qemu, process.pid)
    assert qemu.asked == []
    assert left(process) == []
