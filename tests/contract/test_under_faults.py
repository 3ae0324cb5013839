"""kvmenc's sync on a kernel in which calls fail: the right answer, or the right error, in the end.

Guests write and flip between the calls. A sync that fails may be repeated; what it had merged
stays, so that in the end no written page is missing and every state is the kernel's.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fakekvm
from fakekvm.faults import DEATH, Fault
from fakekvm.guests import Flip, Halt, WritePages
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.dirtysource import DirtyLogSource
from kvmenc.encstate.pageenc import PageEncSource
from kvmenc.errors import KvmencError, errno_name
from kvmenc.guest.scratch import GuestRam
from kvmenc.kvm import KvmSystem, Vm
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.sync import GuestMaps

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from fakekvm.guests import Step

NPAGES, ROUNDS = 300, 12
REVISION = uapi.REVISIONS["v9"]
CALLS = ("KVM_GET_DIRTY_LOG", "KVM_CLEAR_DIRTY_LOG", "KVM_GET_PAGE_ENC_BITMAP")
ERRNOS = (errno.EINTR, errno.ENOMEM, errno.EFAULT, errno.EINVAL, errno.EIO, errno.ENOENT)


class Machine:
    """A VM of two slots with a guest that writes and flips; and the truth about it."""

    def __init__(self, faults: Sequence[Fault], *, manual_protect: bool, seed: int = 1) -> None:
        self.kernel = fakekvm.Kernel(fakekvm.host_named("sev-v9"), faults=faults, seed=seed)
        self.ram = GuestRam("ram", NPAGES)
        low = MemSlot(0, 0, 100, self.ram.address)
        high = MemSlot(1, 0x1000, NPAGES - 100, self.ram.address + 100 * 4096)
        self.layout = Layout([low, high], [RamBlock("ram", NPAGES, self.ram.address)])
        self.system = KvmSystem.open(FakeBackend(self.kernel))
        self.vm: Vm = self.system.create_vm()
        if manual_protect:
            self.vm.enable_manual_protect()
        for slot in (low, high):
            self.vm.set_slot(slot)
        self.vcpu = self.vm.create_vcpu()
        self.dirty = DirtyLogSource(self.vm, manual_protect=manual_protect)
        self.private = PageEncSource(self.vm, REVISION)
        self.maps = GuestMaps(self.layout)
        self.rng = np.random.default_rng(seed)
        self.written = np.zeros(NPAGES, np.bool_)
        self.shared = np.zeros(NPAGES, np.bool_)

    def guest_turn(self) -> None:
        """Writes some pages, and flips a run of them."""
        pages = self.rng.integers(0, NPAGES, 9)
        first = int(self.rng.integers(100, NPAGES - 8))
        private = bool(self.rng.integers(2))
        steps: list[Step] = [
            WritePages(_gfns(pages), 1),
            Flip(0x1000 + first - 100, 8, private=private),
            Halt(),
        ]
        self.kernel.load_guest(self.vm.fd, 0, steps)
        self.vcpu.run()
        self.written[pages] = True
        self.shared[first : first + 8] = not private

    def sync(self) -> Iterator[KvmencError]:
        """Until one succeeds; yields the errors of those that did not."""
        while True:
            try:
                self.maps.sync(self.dirty, self.private)
            except KvmencError as error:
                yield error
            else:
                return

    def check(self) -> None:
        """No page that was written is missing, and each state is the guest's own."""
        every = np.arange(NPAGES)
        private = self.maps.private["ram"].at(every)
        assert np.array_equal(~private, self.shared)
        missing = np.flatnonzero(self.written & ~self.maps.dirty["ram"].at(every))
        assert not missing.size


def _gfns(pages: np.ndarray) -> np.ndarray:
    return np.where(pages < 100, pages, pages - 100 + 0x1000).astype(np.int64)


def storm(machine: Machine) -> list[KvmencError]:
    errors = []
    for _ in range(ROUNDS):
        machine.guest_turn()
        errors += list(machine.sync())
    machine.check()
    return errors


@pytest.mark.parametrize("manual_protect", [False, True])
@pytest.mark.parametrize("number", ERRNOS, ids=errno_name)
@pytest.mark.parametrize("request_name", CALLS)
def test_a_storm_of_errors_loses_no_page_and_no_state(
    request_name: str, number: int, manual_protect: bool
) -> None:
    fault = Fault(request=request_name, error=number, chance=0.4)
    machine = Machine([fault], manual_protect=manual_protect)
    errors = storm(machine)
    asked = request_name != "KVM_CLEAR_DIRTY_LOG" or manual_protect
    assert (machine.kernel.faults.struck[fault] > 0) == asked
    if number == errno.EINTR or not asked:
        assert errors == [], "interrupted calls are made again"
    else:
        assert {errno_name(number)} == {_errno_in(error) for error in errors}
        assert all(request_name in str(error) for error in errors)


def _errno_in(error: KvmencError) -> str:
    return next(name for name in map(errno_name, ERRNOS) if f" {name}:" in f" {error}:")


@pytest.mark.parametrize("manual_protect", [False, True])
def test_flips_and_writes_between_any_two_calls(manual_protect: bool) -> None:
    """A page is written and flipped just before each call that reads; all come out in the end."""
    steps = (WritePages(np.array([0x1000 + 50], np.int64), 1), Flip(0x1000 + 50, 1, private=False))
    back = (Flip(0x1000 + 50, 1, private=True), WritePages(np.array([0x1000 + 50], np.int64), 2))
    faults = [
        Fault(request=name, before=(steps, back)[nth % 2], skip=nth, times=1)
        for name in CALLS
        for nth in range(6)
    ]
    machine = Machine(faults, manual_protect=manual_protect)
    for _ in range(8):
        list(machine.sync())
    assert sum(machine.kernel.faults.struck.values()) >= 12
    machine.written[150] = True
    everything = np.arange(NPAGES)
    assert machine.maps.private["ram"].at(everything)[150] == _kernel_says(machine, 50)
    assert machine.maps.dirty["ram"].at(np.array([150]))[0]


def _kernel_says(machine: Machine, page: int) -> bool:
    words = dict(machine.private.read(machine.layout.slots))[machine.layout.slots[1]]
    return bool(int(words[page // 64]) >> page % 64 & 1)


def test_a_vm_that_dies_is_an_error_each_time_and_nothing_is_forgotten() -> None:
    fault = Fault(request="KVM_GET_PAGE_ENC_BITMAP", error=DEATH, skip=2, times=1)
    machine = Machine([fault], manual_protect=True)
    machine.guest_turn()
    assert list(machine.sync()) == []
    before = machine.maps.dirty["ram"].pages
    machine.guest_turn()
    for _ in range(2):
        with pytest.raises(KvmencError, match="EIO"):
            machine.maps.sync(machine.dirty, machine.private)
    assert machine.maps.dirty["ram"].pages >= before
