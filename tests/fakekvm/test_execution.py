"""KVM_RUN: how a script ends in exits, and goes on after them."""

from __future__ import annotations

import struct
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import Host, host_named
from fakekvm.guests import Flip, Halt, PortOut, Step, WritePages, sequential_writer
from tests.fakekvm import raw
from tests.fakekvm.raw import CAP_HYPERCALL, LOG, PAGE, READONLY, Buffer, FakeMachine, Guest

if TYPE_CHECKING:
    from collections.abc import Iterable

IO, HYPERCALL, HLT, MMIO, INTR = 2, 3, 5, 6, 10
MAP_GPA_RANGE = 12
U64 = (1 << 64) - 1


def run(guest: Guest, script: Iterable[Step] | None = None) -> raw.Result:
    """Load a script, if there is one, and run; the exit's reason or an errno."""
    assert isinstance(guest.machine, FakeMachine)
    if script is not None:
        guest.machine.kernel.load_guest(guest.vm, 0, script)
    result = guest.machine.ioctl(guest.vcpu, raw.RUN)
    return guest.exit_reason() if result == 0 else result


def registers(guest: Guest) -> tuple[int, ...]:
    """Of a vCPU: rax, rbx, rcx, rdx."""
    buffer = Buffer(bytes(18 * 8))
    assert guest.machine.ioctl(guest.vcpu, raw.GET_REGS, buffer) == 0
    return struct.unpack_from("<4Q", buffer.bytes)


def test_a_vcpu_without_a_script_halts_and_halts(fake: FakeMachine) -> None:
    guest = Guest(fake)
    assert (run(guest), run(guest)) == (HLT, HLT)


def test_a_script_goes_on_after_each_exit_and_ends_in_halts(fake: FakeMachine) -> None:
    guest = Guest(fake)
    first, second = WritePages(range(3), 1), WritePages(range(3, 5), 2)
    script: list[Step] = [first, Halt(), second, PortOut(0x10, 0)]
    assert run(guest, script) == HLT
    assert guest.get_log() == "[0, 1, 2]"
    assert run(guest) == IO
    assert guest.get_log() == "[3, 4]"
    assert (run(guest), run(guest)) == (HLT, HLT)


@pytest.mark.parametrize(("size", "data"), [(1, "44"), (2, "4433"), (4, "44332211")])
def test_a_port_write_says_port_size_and_value(fake: FakeMachine, size: int, data: str) -> None:
    guest = Guest(fake)
    assert run(guest, [PortOut(0x3F8, 0xAA11223344, size)]) == IO
    assert struct.unpack_from("<BBHIQ", guest.run_area, 32) == (1, size, 0x3F8, 1, PAGE)
    assert guest.run_area[PAGE : PAGE + size].hex() == data


@pytest.mark.parametrize("gfn", [70, 1 << 39], ids=["read-only", "hole"])
def test_a_write_that_memory_does_not_take_is_an_mmio_exit(fake: FakeMachine, gfn: int) -> None:
    guest = Guest(fake, npages=64)
    guest.region(slot=1, flags=LOG | READONLY, gfn=70, npages=1)
    assert run(guest, [WritePages(np.array([5, gfn, 6]), 0x1234)]) == MMIO
    assert struct.unpack_from("<QQIB", guest.run_area, 32) == (gfn * PAGE, 0x1234, 8, 1)
    assert guest.get_log() == "[5]", "what came after it was not written yet"
    assert run(guest) == HLT
    assert (guest.get_log(), guest.get_log(slot=1)) == ("[6]", "[]")
    assert guest.area.word(0) == 0


def test_writes_find_their_slots_whatever_the_order(fake: FakeMachine) -> None:
    guest = Guest(fake, npages=30)
    assert guest.region(slot=0, npages=0) == 0
    assert guest.region(slot=2, gfn=1000, npages=10, page=0) == 0
    assert guest.region(slot=1, gfn=1010, npages=10, page=20) == 0
    assert guest.region(slot=7, gfn=5, npages=10, page=10) == 0
    assert run(guest, [WritePages(np.array([1019, 1000, 5, 1010, 14, 1009, 1000]), 3)]) == HLT
    assert [guest.get_log(slot) for slot in (2, 1, 7)] == ["[0, 9]", "[0, 9]", "[0, 9]"]
    assert [page for page in range(30) if guest.area.word(page)] == [0, 9, 10, 19, 20, 29]


def test_memory_that_is_not_there_is_efault_again_and_again(fake: FakeMachine) -> None:
    guest = Guest(fake, npages=4)
    guest.area.unmap(2, 1)
    assert run(guest, [WritePages(range(4), 1)]) == "EFAULT"
    assert run(guest) == "EFAULT"
    assert run(guest, []) == HLT


def test_an_immediate_exit_does_nothing_and_says_nothing(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.run_area[8] = 77
    guest.run_area[1] = 1
    assert run(guest, [WritePages(range(3), 1)]) == "EINTR"
    assert (guest.exit_reason(), guest.get_log()) == (77, "[]")
    guest.run_area[1] = 0
    assert run(guest) == HLT
    assert guest.get_log() == "[0, 1, 2]"


def test_a_vcpu_at_work_can_be_stopped(fake: FakeMachine) -> None:
    guest = Guest(fake)
    fake.kernel.load_guest(guest.vm, 0, sequential_writer(range(100)))
    results: list[raw.Result] = []
    thread = threading.Thread(target=lambda: results.append(fake.ioctl(guest.vcpu, raw.RUN)))
    thread.start()
    while guest.area.word(99) < 3:
        assert thread.is_alive()
    guest.run_area[1] = 1
    thread.join(10)
    assert (results, guest.exit_reason()) == (["EINTR"], INTR)


def test_run_takes_no_argument(fake: FakeMachine) -> None:
    assert fake.ioctl(Guest(fake).vcpu, raw.RUN, 1) == "EINVAL"


def test_registers_are_kept(fake: FakeMachine) -> None:
    guest = Guest(fake)
    for get, put, size in (
        (raw.GET_REGS, raw.SET_REGS, 0x90),
        (raw.GET_SREGS, raw.SET_SREGS, 0x138),
    ):
        data = bytes(n % 251 | 2 for n in range(size))  # bit 1 of rflags is always set
        assert fake.ioctl(guest.vcpu, put, Buffer(data)) == 0
        out = Buffer(bytes(size))
        assert fake.ioctl(guest.vcpu, get, out) == 0
        assert out.bytes == data


def test_an_announcement_is_an_exit_where_that_is_enabled(fake: FakeMachine) -> None:
    guest = Guest(fake)
    assert guest.enable(CAP_HYPERCALL, 1 << MAP_GPA_RANGE) == 0
    assert run(guest, [Flip(0x123, 7, private=True), Flip(0x200, 1, private=False)]) == HYPERCALL
    number, gpa, npages, attributes = struct.unpack_from("<4Q", guest.run_area, 32)
    assert (number, gpa, npages, attributes) == (MAP_GPA_RANGE, 0x123000, 7, 1 << 4)
    assert registers(guest) == (MAP_GPA_RANGE, 0x123000, 7, 1 << 4)
    ret, flags = struct.unpack_from("<QQ", guest.run_area, 88)
    assert (ret, flags) == (0, 1), "long mode; 0 unless userspace says otherwise"

    struct.pack_into("<Q", guest.run_area, 88, 0x5555)
    assert run(guest) == HYPERCALL
    assert registers(guest)[:2] == (MAP_GPA_RANGE, 0x200000)
    assert struct.unpack_from("<4Q", guest.run_area, 32)[3] == 0
    assert run(guest) == HLT
    assert registers(guest)[0] == 0


def test_what_userspace_returns_is_taken_even_by_an_immediate_exit(fake: FakeMachine) -> None:
    guest = Guest(fake)
    guest.enable(CAP_HYPERCALL, 1 << MAP_GPA_RANGE)
    run(guest, [Flip(1, 1, private=True)])
    struct.pack_into("<Q", guest.run_area, 88, 0x5555)
    guest.run_area[1] = 1
    assert run(guest) == "EINTR"
    assert registers(guest)[0] == 0x5555


def test_an_announcement_that_nobody_takes_fails(fake: FakeMachine) -> None:
    guest = Guest(fake)
    assert run(guest, [Flip(1, 1, private=True)]) == HLT
    assert registers(guest)[0] == -1000 & U64


@pytest.mark.parametrize(("gfn", "npages"), [(1, 0), (1, U64), (U64, 1)])
def test_an_announcement_of_no_range_fails(fake: FakeMachine, gfn: int, npages: int) -> None:
    guest = Guest(fake)
    guest.enable(CAP_HYPERCALL, 1 << MAP_GPA_RANGE)
    assert run(guest, [Flip(gfn, npages, private=True)]) == HLT
    assert registers(guest)[0] == -22 & U64


@pytest.mark.parametrize(
    ("arg", "flags", "expected"),
    [(1 << 12, 0, 0), (0, 0, 0), (1, 0, "EINVAL"), (1 << 44, 0, "EINVAL"), (0, 1, "EINVAL")],
)
def test_only_the_hypercalls_that_can_exit_can_be_enabled(
    fake: FakeMachine, arg: int, flags: int, expected: raw.Result
) -> None:
    assert Guest(fake).enable(CAP_HYPERCALL, arg, flags) == expected


def test_with_an_encryption_state_announcements_stay_in_the_kernel() -> None:
    with FakeMachine(host_named("sev-v2-2019")) as fake:
        guest = Guest(fake)
        assert run(guest, [Flip(3, 2, private=False), Flip(4, 1, private=True)]) == HLT
        out = Buffer(bytes(8))
        wanted = Buffer(struct.pack("<QQQ", 0, 8, out.address))
        assert fake.ioctl(guest.vm, 0x4018AEC2, wanted) == 0
        assert out.bytes[0] == 0b11110111
        assert guest.get_log() == "[]", "a flip dirties nothing"


def test_loading_for_a_vcpu_that_is_not_there_is_refused(fake: FakeMachine) -> None:
    guest = Guest(fake)
    with pytest.raises(OSError, match="No such file"):
        fake.kernel.load_guest(guest.vm, 9, [])


@pytest.mark.parametrize("host", [Host(), Host(ring_logs_every_write=True)], ids=["once", "each"])
def test_a_ring_and_a_bitmap_log_the_same_pages(host: Host) -> None:
    rng = np.random.default_rng(1)
    pages = rng.integers(0, 300, size=700)
    with FakeMachine(host) as fake:
        bitmap = Guest(fake, npages=300)
        assert run(bitmap, [WritePages(pages, 1)]) == HLT
        ring = Guest(fake, npages=300, ring_bytes=1 << 20)
        assert run(ring, [WritePages(pages, 1)]) == HLT
        told = [offset for flags, _, offset in ring.entries() if flags]
        assert bitmap.get_log() == str(sorted(set(told)))
        assert len(told) == (700 if host.ring_logs_every_write else len(set(told)))
