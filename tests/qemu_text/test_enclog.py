"""Logs of announcements: every line of the two formats, and the state that they leave."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.encstate.hypercalls import MapGpaTracker
from kvmenc.errors import InputError
from kvmenc.memory.slots import MemSlot
from kvmenc.memory.words import bits_at, count
from kvmenc.qemu import enclog
from kvmenc.qemu.enclog import parse_enc_log, read_enc_log

if TYPE_CHECKING:
    from pathlib import Path

SLOTS = [MemSlot(0, 0, 100, 1 << 40), MemSlot(1, 256, 300, 1 << 41)]
NPAGES = 400

# Linux v6.12, Documentation/trace/ftrace.rst has the head; arch/x86/kvm/trace.h the event.
HEAD = """\
# tracer: nop
#
# entries-in-buffer/entries-written: {}/{}   #P:4
#
#                                _-----=> irqs-off/BH-disabled
#           TASK-PID     CPU#  |||||  TIMESTAMP  FUNCTION
#              | |         |   |||||     |         |
"""
CALL = (
    "       CPU 0/KVM-4711    [002] ..... 1234.567890: "
    "kvm_hypercall: nr 0x{:x} a0 0x{:x} a1 0x{:x} a2 0x{:x} a3 0x0\n"
)
EXIT = (
    "       CPU 0/KVM-4711    [002] d..1. 1234.567891: kvm_exit: reason vmmcall rip 0x1 info 0 0\n"
)
# QEMU v10.0, accel/kvm/trace-events and scripts/tracetool/backend/log.py.
CONVERT = "4711@1795459821.408298:kvm_convert_memory start 0x{:x} size 0x{:x} {}\n"
SLOT = (
    "kvm_set_user_memory AddrSpace#0 Slot#0 flags=0x4 gpa=0x0 size=0x64000 ua=0x7f0000000000 "
    "guest_memfd=12 guest_memfd_offset=0x0 ret=0\n"
)


def shared(gfn: int, npages: int) -> str:
    return CONVERT.format(gfn << 12, npages << 12, "private_to_shared")


def private(gfn: int, npages: int) -> str:
    return CONVERT.format(gfn << 12, npages << 12, "shared_to_private")


def called(gfn: int, npages: int, attributes: int, number: int = 12) -> str:
    return CALL.format(number, gfn << 12, npages, attributes)


def lines(*texts: str) -> list[bytes]:
    return "".join(texts).encode().splitlines(keepends=True)


def private_pages(tracker: MapGpaTracker, slots: list[MemSlot] = SLOTS) -> list[list[bool]]:
    return [bits_at(words, np.arange(slot.npages)).tolist() for slot, words in tracker.read(slots)]


def shared_gfns(*texts: str) -> list[int]:
    state = private_pages(parse_enc_log(lines(*texts), SLOTS).tracker)
    return [
        slot.base_gfn + page
        for slot, pages in zip(SLOTS, state, strict=True)
        for page, is_private in enumerate(pages)
        if not is_private
    ]


def test_a_log_of_qemu() -> None:
    log = parse_enc_log(
        lines(shared(2, 3), "kvm_ioctl type 0x1, arg (nil)\n", private(3, 1)), SLOTS
    )
    assert (log.lines, log.pages) == (2, 4)
    assert shared_gfns(shared(2, 3), private(3, 1)) == [2, 4]


def test_a_log_of_ftrace() -> None:
    """Bit 4 is what counts; the low bits are the page size."""
    texts = [HEAD.format(5, 5), called(260, 4, 0), EXIT, called(261, 2, 0x11), called(5, 1, 0, 11)]
    assert shared_gfns(*texts) == [260, 263]
    assert parse_enc_log(lines(*texts), SLOTS).lines == 2


def test_both_in_one_log_and_without_anything_before_them() -> None:
    bare = CONVERT.partition(":")[2].format(0x5000, 0x1000, "private_to_shared")
    trace_cmd = called(6, 1, 0).replace("[002] .....", "[002]")
    assert shared_gfns(bare, trace_cmd) == [5, 6]


def test_a_page_that_nothing_names_is_private() -> None:
    assert shared_gfns(private(0, 100)) == []


def test_what_lies_in_no_slot_is_counted() -> None:
    log = parse_enc_log(lines(shared(90, 20)), SLOTS)
    assert log.tracker.unkept_pages == 10
    assert log.pages == 20


@pytest.mark.parametrize(
    "refused",
    [
        CONVERT.format(0x1000, 0, "private_to_shared"),
        CONVERT.format(0x1000, 0x1800, "private_to_shared"),
        CONVERT.format(0x1800, 0x1000, "private_to_shared"),
        CALL.format(12, 0x1800, 1, 0),
        CALL.format(12, 0x1000, 0, 0),
        CALL.format(12, 0x1000, 2**64 - 1, 0),
        CALL.format(12, 2**64 - 4096, 1, 0),
    ],
)
def test_what_kvm_and_qemu_refuse_changes_nothing(refused: str) -> None:
    assert shared_gfns(refused, shared(7, 1)) == [7]


def test_a_range_beyond_every_machine_is_taken_as_far_as_there_is_memory() -> None:
    assert shared_gfns(CALL.format(12, 255 << 12, 2**60, 0)) == list(range(256, 556))


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("kvm_convert_memory start 0x1000 size 0x1000 to_shared\n", "no kvm_convert_memory that"),
        ("kvm_convert_memory start 0x1000 si\n", "no kvm_convert_memory that"),
        ("kvm_hypercall: nr 0xc a0 0x1000 a1 0x1 a2 0x1\n", "no kvm_hypercall that"),
        ("kvm_hypercall: nr 0xc a0 0x10000000000000000 a1 0x1 a2 0x1 a3 0x0\n", "no kvm_hypercall"),
        ("x" * 4097 + "\n", "longer than 4096"),
        ("x" * 10_000_000 + "\n", "longer than 4096"),
    ],
)
def test_a_line_that_is_not_right_is_named(bad: str, why: str) -> None:
    with pytest.raises(InputError, match=f"a log, line 2: {re.escape(why)}") as caught:
        parse_enc_log(lines(shared(1, 1), bad), SLOTS, "a log")
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("texts", [[], [EXIT], [called(1, 1, 0, 5)], [HEAD.format(0, 0)]])
def test_a_log_without_any_announcement(texts: list[str]) -> None:
    with pytest.raises(InputError, match="no announcement in it"):
        parse_enc_log(lines(*texts), SLOTS)


@pytest.mark.parametrize(
    ("texts", "warning"),
    [
        ([shared(1, 1)], "nothing in it shows that it begins with the guest"),
        ([shared(1, 1), SLOT], "nothing in it shows that it begins with the guest"),
        ([SLOT, shared(1, 1)], None),
        ([HEAD.format(9, 9), called(1, 1, 0)], "nothing in it shows that it begins"),
        ([HEAD.format(9, 10), called(1, 1, 0)], "its oldest events were lost"),
        (
            [SLOT, called(1, 1, 0), "CPU:2 [LOST 17 EVENTS]\n", "CPU:1 [LOST 3 EVENTS]\n"],
            "20 events were lost",
        ),
    ],
)
def test_what_makes_the_state_doubtful_is_said(texts: list[str], warning: str | None) -> None:
    warnings = parse_enc_log(lines(*texts), SLOTS, "a log").warnings
    assert len(warnings) == (warning is not None)
    assert not warning or warning in warnings[0]


calls = st.tuples(
    st.integers(0, NPAGES + 200), st.integers(1, 150), st.booleans(), st.booleans()
).map(
    lambda it: (
        called(it[0], it[1], 16 * it[2]) if it[3] else (private if it[2] else shared)(*it[:2])
    )
)


@given(texts=st.lists(calls, min_size=1, max_size=30), batch=st.sampled_from([1, 2, 7, 1 << 20]))
def test_the_state_is_that_of_the_announcements_one_by_one(texts: list[str], batch: int) -> None:
    one_by_one = MapGpaTracker(SLOTS)
    for text in texts:
        numbers = [int(it, 16) for it in re.findall(r" 0x([0-9a-f]+)", text)]
        if "kvm_hypercall" in text:
            one_by_one.apply(*numbers[1:4])
        else:
            one_by_one.apply(numbers[0], numbers[1] >> 12, 16 * ("to_private" in text))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(enclog, "_MOST_CALLS", batch)
        log = parse_enc_log(lines(*texts), SLOTS)
    assert private_pages(log.tracker) == private_pages(one_by_one)


def test_a_file_is_read_to_its_end_and_a_last_line_that_is_cut_off_is_left_out(
    tmp_path: Path,
) -> None:
    path = tmp_path / "log"
    path.write_text(shared(1, 1) + shared(3, 1).rstrip("\n"))
    log = read_enc_log(path, SLOTS)
    assert log.lines == 1
    path.write_text(shared(1, 1) + "\0" * 5000)
    with pytest.raises(InputError, match=r"log, line 2: longer than 4096"):
        read_enc_log(path, SLOTS)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    """Nothing is waited for: a pipe without a writer would hang."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(InputError, match=r"not a file|Is a directory"):
            read_enc_log(type(tmp_path)(path), SLOTS)
    with pytest.raises(InputError, match="No such file"):
        read_enc_log(tmp_path / "none", SLOTS)


@pytest.mark.timeout(60)
def test_hundreds_of_thousands_of_lines_take_seconds() -> None:
    """One by one, with pages scattered so, they would take a minute."""
    slot = MemSlot(0, 0, 1 << 22, 1 << 40)
    gfns = np.random.default_rng(1).integers(0, slot.npages, 200_000).tolist()
    texts = [called(gfn, 1, 16 * (n & 1)) for n, gfn in enumerate(gfns)]
    log = parse_enc_log(lines(*texts), [slot])
    [(_, words)] = log.tracker.read([slot])
    last = dict(zip(gfns, range(len(gfns)), strict=True))
    assert slot.npages - count(words, slot.npages) == sum(n % 2 == 0 for n in last.values())
