"""Faults come when they are told to, and only then."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import Host, host_named
from fakekvm.faults import DEATH, Fault, FaultyKernel, request_number
from fakekvm.guests import Flip, WritePages
from tests.fakekvm import raw
from tests.fakekvm.raw import PAGE, Area

if TYPE_CHECKING:
    from collections.abc import Iterable

SEV = host_named("sev-v9")
GET_ENC = 0x4018AEC8


def outcome(kernel: FaultyKernel, fd: int, request: int, arg: int = 0) -> int:
    """The result, or the errno negated."""
    try:
        return kernel.ioctl(fd, request, arg)
    except OSError as error:
        return -(error.errno or 0)


def open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def versions(kernel: FaultyKernel, count: int) -> list[int]:
    kvm = kernel.open("/dev/kvm")
    return [outcome(kernel, kvm, raw.GET_API_VERSION) for _ in range(count)]


def test_some_calls_are_let_through_and_so_many_fail() -> None:
    fault = Fault(request="KVM_GET_API_VERSION", error=errno.ENOMEM, skip=2, times=3)
    with FaultyKernel(Host(), [fault]) as kernel:
        assert versions(kernel, 7) == [12, 12, *[-errno.ENOMEM] * 3, 12, 12]
        assert kernel.struck[fault] == 3


def test_other_requests_do_not_count() -> None:
    fault = Fault(request="KVM_GET_API_VERSION", error=errno.EINTR, skip=1)
    with FaultyKernel(Host(), [fault]) as kernel:
        kvm = kernel.open("/dev/kvm")
        for _ in range(3):
            assert outcome(kernel, kvm, raw.GET_VCPU_MMAP_SIZE) == 3 * PAGE
        assert versions(kernel, 2) == [12, -errno.EINTR]


def test_a_fault_of_any_request_is_of_every_one() -> None:
    with FaultyKernel(Host(), [Fault(error=errno.EINTR, times=2)]) as kernel:
        kvm = kernel.open("/dev/kvm")
        assert outcome(kernel, kvm, raw.GET_VCPU_MMAP_SIZE) == -errno.EINTR
        assert versions(kernel, 2) == [-errno.EINTR, 12]


def test_chance_is_by_the_seed_and_about_right() -> None:
    def struck(seed: int) -> list[int]:
        with FaultyKernel(Host(), [Fault(error=errno.EINTR, chance=0.25)], seed) as kernel:
            return versions(kernel, 2000)

    assert struck(1) == struck(1)
    assert struck(1) != struck(2)
    assert 0.2 < struck(1).count(-errno.EINTR) / 2000 < 0.3


def test_a_failed_call_has_done_nothing() -> None:
    fault = Fault(request="KVM_CREATE_VM", error=errno.ENOMEM, times=1)
    with FaultyKernel(Host(), [fault]) as kernel:
        kvm = kernel.open("/dev/kvm")
        before = open_files()
        assert outcome(kernel, kvm, raw.CREATE_VM) == -errno.ENOMEM
        assert open_files() == before
        assert outcome(kernel, kvm, raw.CREATE_VM) > 0


class Guest:
    """A VM with one slot of 64 logged pages, on a kernel with faults."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        self.kernel = FaultyKernel(SEV, faults)
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


@pytest.mark.parametrize("name", ["KVM_GET_PAGE_ENC_BITMAP", "KVM_NO_SUCH", "os", "U64"])
def test_an_ioctl_that_the_host_has_not_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"no ioctl is called '{name}' on this host"):
        FaultyKernel(Host(), [Fault(request=name, error=errno.EINTR)])


def test_names_are_of_the_host() -> None:
    assert request_number("KVM_GET_PAGE_ENC_BITMAP", SEV) == GET_ENC
    assert request_number("KVM_GET_PAGE_ENC_BITMAP", host_named("sev-v2-2019")) == 0x4018AEC2
    assert request_number(7, SEV) == 7
