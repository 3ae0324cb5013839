"""Faults come when they are told to, and only then."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import Kernel, host_named
from fakekvm.clock import HeldClock, MachineClock
from fakekvm.faults import DEATH, BadFault, Fault, Faults
from fakekvm.guests import Flip, WritePages
from fakekvm.requestnames import request_names
from tests.fakekvm import raw, sevraw
from tests.fakekvm.raw import PAGE, Area
from tests.fakekvm.sevraw import OK, RUNNING, UNASKED, Machine, SevGuest

if TYPE_CHECKING:
    from collections.abc import Iterable

SEV = host_named("sev-v9")
GET_ENC = 0x4018AEC8


def outcome(kernel: Kernel, fd: int, request: int, arg: int = 0) -> int:
    """The result, or the errno negated."""
    try:
        return kernel.ioctl(fd, request, arg)
    except OSError as error:
        return -(error.errno or 0)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def versions(kernel: Kernel, count: int) -> list[int]:
    kvm = kernel.open("/dev/kvm")
    return [outcome(kernel, kvm, raw.GET_API_VERSION) for _ in range(count)]


def test_some_calls_are_let_through_and_so_many_fail() -> None:
    fault = Fault(request="KVM_GET_API_VERSION", error=errno.ENOMEM, skip=2, times=3)
    with Kernel(faults=[fault]) as kernel:
        assert versions(kernel, 7) == [12, 12, *[-errno.ENOMEM] * 3, 12, 12]
        assert kernel.faults.struck[fault] == 3


def test_other_requests_do_not_count() -> None:
    fault = Fault(request="KVM_GET_API_VERSION", error=errno.EINTR, skip=1)
    with Kernel(faults=[fault]) as kernel:
        kvm = kernel.open("/dev/kvm")
        for _ in range(3):
            assert outcome(kernel, kvm, raw.GET_VCPU_MMAP_SIZE) == 3 * PAGE
        assert versions(kernel, 2) == [12, -errno.EINTR]


def test_a_fault_of_any_request_is_of_every_one() -> None:
    with Kernel(faults=[Fault(error=errno.EINTR, times=2)]) as kernel:
        kvm = kernel.open("/dev/kvm")
        assert outcome(kernel, kvm, raw.GET_VCPU_MMAP_SIZE) == -errno.EINTR
        assert versions(kernel, 2) == [-errno.EINTR, 12]


def test_chance_is_by_the_seed_and_about_right() -> None:
    def struck(seed: int) -> list[int]:
        with Kernel(faults=[Fault(error=errno.EINTR, chance=0.25)], seed=seed) as kernel:
            return versions(kernel, 2000)

    assert struck(1) == struck(1)
    assert struck(1) != struck(2)
    assert 0.2 < struck(1).count(-errno.EINTR) / 2000 < 0.3


def test_a_failed_call_has_done_nothing() -> None:
    fault = Fault(request="KVM_CREATE_VM", error=errno.ENOMEM, times=1)
    with Kernel(faults=[fault]) as kernel:
        kvm = kernel.open("/dev/kvm")
        before = open_files()
        assert outcome(kernel, kvm, raw.CREATE_VM) == -errno.ENOMEM
        assert open_files() == before
        assert outcome(kernel, kvm, raw.CREATE_VM) > 0


class Guest:
    """A VM with one slot of 64 logged pages, on a kernel with faults."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.kernel = Kernel(SEV, faults=faults)
        self.memory = Area(64)
        self.vm = self.kernel.ioctl(self.kernel.open("/dev/kvm"), raw.CREATE_VM, 0)
        region = np.array([1 << 32, 0, 64 * PAGE, self.memory.address], "<u8")  # slot 0, logged
        assert outcome(self.kernel, self.vm, raw.SET_REGION, region.ctypes.data) == 0

    def read(self, request: int, first: int, second: int) -> tuple[int, int]:
        """The result, and the word that was read."""
        word = np.zeros(1, "<u8")
        arg = np.array([first, second, word.ctypes.data], "<u8")
        if request == raw.GET_DIRTY_LOG:
            arg = np.array([first, word.ctypes.data], "<u8")
        return outcome(self.kernel, self.vm, request, arg.ctypes.data), int(word[0])

    def dirty(self) -> tuple[int, int]:
        return self.read(raw.GET_DIRTY_LOG, 0, 0)

    def private(self) -> tuple[int, int]:
        return self.read(GET_ENC, 0, 64)


def test_a_flip_and_a_write_can_be_placed_between_two_ioctls() -> None:
    steps = (Flip(3, 1, private=False), WritePages(range(3, 5), 7))
    guest = Guest([Fault(request="KVM_GET_PAGE_ENC_BITMAP", before=steps, skip=1, times=1)])
    everything = (1 << 64) - 1
    assert (guest.dirty(), guest.private()) == ((0, 0), (0, everything))
    assert (guest.dirty(), guest.private()) == ((0, 0), (0, everything & ~(1 << 3)))
    assert (guest.dirty(), guest.private()) == ((0, 0b11000), (0, everything & ~(1 << 3)))
    assert guest.memory.word(4) == 7


def test_a_dead_vm_answers_eio_and_others_live() -> None:
    guest = Guest([Fault(request="KVM_GET_DIRTY_LOG", error=DEATH, skip=1, times=1)])
    assert guest.dirty() == (0, 0)
    assert guest.dirty() == (-errno.EIO, 0)
    assert guest.private() == (-errno.EIO, 0)
    kvm = guest.kernel.open("/dev/kvm")
    assert outcome(guest.kernel, kvm, raw.CREATE_VM) > 0


@pytest.mark.parametrize(
    "name", ["KVM_GET_PAGE_ENC_BITMAP", "KVM_NO_SUCH", "os", "U64", "KVM_EXIT_IO", "KVM_SEV_INIT"]
)
def test_an_ioctl_that_the_host_has_not_is_refused(name: str) -> None:
    with pytest.raises(BadFault, match=f"no ioctl is called '{name}' on this host"):
        Kernel(faults=[Fault(request=name, error=errno.EINTR)])


def test_names_are_of_the_host() -> None:
    assert request_names(SEV)["KVM_GET_PAGE_ENC_BITMAP"] == (GET_ENC, None)
    assert request_names(host_named("sev-v2-2019"))["KVM_GET_PAGE_ENC_BITMAP"].number == 0x4018AEC2
    assert request_names(SEV)["KVM_SEV_SEND_UPDATE_DATA"] == (0xC008AEBA, 9)


def test_each_nth_call_and_no_other() -> None:
    fault = Fault(request="KVM_GET_API_VERSION", error=errno.EIO, skip=1, every=3, times=2)
    with Kernel(faults=[fault]) as kernel:
        good, bad = 12, -errno.EIO
        assert versions(kernel, 11) == [good, *[good, good, bad] * 2, *[good] * 4]


# --- short memory


def test_a_bitmap_above_a_size_has_no_memory() -> None:
    fault = Fault(request="KVM_GET_PAGE_ENC_BITMAP", above_bytes=64, error=errno.ENOMEM)
    guest = Guest([fault])
    out = np.zeros(16, "<u8")
    for npages, result in ((512, 0), (513, -errno.ENOMEM), (1024, -errno.ENOMEM), (8, 0)):
        arg = np.array([0, npages, out.ctypes.data], "<u8")
        assert outcome(guest.kernel, guest.vm, GET_ENC, arg.ctypes.data) == result
    assert guest.kernel.faults.struck[fault] == 2


def test_memslots_are_counted_together() -> None:
    guest = Guest([Fault(above_bytes=100 * PAGE, error=errno.ENOMEM)])  # it has 64 pages

    def slot(number: int, npages: int) -> int:
        region = np.array([number | 1 << 32, number << 30, npages * PAGE, guest.memory.address])
        return outcome(guest.kernel, guest.vm, raw.SET_REGION, region.astype("<u8").ctypes.data)

    assert slot(1, 37) == -errno.ENOMEM
    assert slot(1, 36) == 0
    assert slot(2, 1) == -errno.ENOMEM
    assert slot(1, 0) == 0, "deleting takes no memory"
    assert slot(2, 1) == 0


@pytest.mark.parametrize("address", [0, 1 << 46])
def test_what_cannot_be_read_asks_for_nothing(address: int) -> None:
    guest = Guest([Fault(above_bytes=0, error=errno.ENOMEM, skip=1)])
    for request in (raw.SET_REGION, GET_ENC):
        assert outcome(guest.kernel, guest.vm, request, address) == -errno.EFAULT


# --- slow firmware


class Timed(Machine):
    """A machine with SEV, and a firmware whose clock only its waits move."""

    def __init__(self, *faults: Fault) -> None:
        super().__init__()
        self.kernel.faults = Faults(faults, self.kernel.host)
        self.clock = self.kernel.firmware.clock = HeldClock()


def test_a_slow_command_keeps_the_firmware_busy() -> None:
    slow = Fault(request="KVM_SEV_GUEST_STATUS", delay_s=0.5, skip=1, every=2)
    with Timed(slow) as machine:
        guest = SevGuest(machine).launch()
        times = []
        for _ in range(6):
            before = machine.clock.now()
            assert guest.state() == RUNNING
            times.append(machine.clock.now() - before)
        assert times == [0, 0, 0.5, 0, 0.5, 0]


def test_a_command_can_fail_by_its_name() -> None:
    with Timed(Fault(request="KVM_SEV_LAUNCH_MEASURE", error=errno.ENOMEM, times=1)) as machine:
        guest = SevGuest(machine).init()
        assert [guest.launch_start(), guest.launch_update()] == [OK, OK]
        assert guest.measure() == ("ENOMEM", UNASKED)
        assert guest.measure() == OK


def test_a_rate_can_change_on_the_way() -> None:
    slower = Fault(request="KVM_SEV_SEND_UPDATE_DATA", skip=10, delay_s=0.02)
    with Timed(slower) as machine:
        source, _target = sevraw.session(machine)
        for _ in range(30):
            source.sent()
        assert machine.clock.now() == pytest.approx(20 * 0.02)


def test_delays_of_two_vms_are_one_after_the_other() -> None:
    """By the machine's clock: a held one would not show that both wait at the same time."""
    with Timed(Fault(request="KVM_SEV_GUEST_STATUS", delay_s=0.1)) as machine:
        machine.kernel.firmware.clock = MachineClock()
        threads = [Thread(target=SevGuest(machine).launch().state) for _ in range(3)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert time.perf_counter() - start > 0.29


@pytest.mark.parametrize("request_name", [None, "KVM_RUN", 0xAE80])
def test_nothing_but_the_firmware_can_be_slow(request_name: str | int | None) -> None:
    with pytest.raises(BadFault, match="a delay is of the SEV firmware's commands"):
        Kernel(host_named("sev"), faults=[Fault(request=request_name, delay_s=1)])
