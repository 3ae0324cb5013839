"""Where vCPUs have their scripts from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from fakekvm import Kernel, guests
from fakekvm.scripts import RandomWrites
from tests.fakekvm import raw
from tests.fakekvm.raw import LOG, PAGE, READONLY, FakeMachine, Guest

if TYPE_CHECKING:
    from fakekvm.guests import Script
    from fakekvm.scripts import Scripts, WritableGfns

EXIT_HLT = 5


def machine(scripts: Scripts) -> FakeMachine:
    made = FakeMachine()
    made.kernel = Kernel(scripts=scripts)
    return made


class Asked:
    about = "nothing"

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def script(self, vm: int, vcpu: int, writable: WritableGfns) -> Script:
        self.asked.append((vm, vcpu))
        return ()


def test_each_vcpu_is_asked_for_by_its_numbers() -> None:
    scripts = Asked()
    with machine(scripts) as fake:
        first, second = raw.new_vm(fake), raw.new_vm(fake)
        for vm, vcpu in ((second, 7), (first, 0), (second, 0)):
            raw.number(fake.ioctl(vm, raw.CREATE_VCPU, vcpu))
    assert scripts.asked == [(1, 7), (0, 0), (1, 0)]


def test_random_writes_dirty_the_first_slot_and_halt() -> None:
    with machine(RandomWrites(16)) as fake:
        guest = Guest(fake, npages=100)
        other = raw.Area(50)
        region = raw.region(1, LOG, 200 * PAGE, 50 * PAGE, other.address)
        assert fake.ioctl(guest.vm, raw.SET_REGION, region) == 0
        for run in (1, 2, 3):
            assert fake.ioctl(guest.vcpu, raw.RUN) == 0
            assert guest.exit_reason() == EXIT_HLT
            written = [page for page in range(100) if guest.area.word(page) == run]
            assert 5 < len(written) <= 16
            assert guest.get_log(0) == str(written)
            assert other.map[:] == bytes(50 * PAGE)


def test_they_are_the_same_every_time_and_differ_by_vcpu() -> None:
    def logs(vcpu: int) -> raw.Result:
        with machine(RandomWrites()) as fake:
            guest = Guest(fake, npages=100)
            fd = guest.vcpu if vcpu == 0 else fake.ioctl(guest.vm, raw.CREATE_VCPU, vcpu)
            fake.ioctl(raw.number(fd), raw.RUN)
            return guest.get_log()

    assert logs(0) == logs(0)
    assert logs(0) != logs(1)


@pytest.mark.parametrize("flags", [None, READONLY])
def test_without_memory_that_can_be_written_they_halt(flags: int | None) -> None:
    with machine(RandomWrites()) as fake:
        guest = Guest(fake, npages=8)
        assert fake.ioctl(guest.vm, raw.SET_REGION, raw.region(0, LOG, 0, 0, 0)) == 0
        if flags is not None:
            address = guest.area.address
            region = raw.region(0, flags, 0, 8 * PAGE, address)
            assert fake.ioctl(guest.vm, raw.SET_REGION, region) == 0
        assert fake.ioctl(guest.vcpu, raw.RUN) == 0
        assert guest.exit_reason() == EXIT_HLT
        assert guest.area.map[:] == bytes(8 * PAGE)


def test_what_is_loaded_by_hand_comes_in_place_of_the_script() -> None:
    with machine(RandomWrites()) as fake:
        guest = Guest(fake, npages=8)
        fake.kernel.load_guest(guest.vm, 0, [guests.WritePages(range(3, 4), 9)])
        assert fake.ioctl(guest.vcpu, raw.RUN) == 0
        assert guest.get_log() == "[3]"
