"""A guest's flips, by every way that they can come: the same private maps, and flips made dirty."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest

import fakekvm
from kvmenc import uapi
from kvmenc.backend import LocalBackend
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.overlay import OverlayBackend
from kvmenc.encstate.hypercalls import MapGpaTracker
from kvmenc.encstate.pageenc import PageEncSource, offered_revisions
from kvmenc.errors import NotSupported
from kvmenc.guest.fake import script_of
from kvmenc.guest.program import Flip, Program, Tick, WriteRun
from kvmenc.guest.runner import GuestThread
from kvmenc.guest.scratch import HIGH_OFFSET, ScratchVm
from kvmenc.guest.x86 import FLIP_PORT
from kvmenc.kvm import KvmSystem
from kvmenc.memory.sync import GuestMaps
from tests.support import need_kvm

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.backend import Backend
    from kvmenc.memory.sync import PrivateSource

PROGRAM: Program = (
    Flip(0x100, 200, private=False),
    Flip(0x120, 5, private=True),
    Flip(0x9E, 4, private=False),  # two pages of the low slot, two of the hole behind it
    WriteRun(0x11FE0, 5),
    Tick(),
    Flip(0x101, 2, private=True),
    Tick(),
)
HIGH_SHARED = set(range(200)) - set(range(0x20, 0x25))
FIRST_SHARED = {
    "ram": {HIGH_OFFSET + page for page in HIGH_SHARED} | {0x9E, 0x9F},
    "dimm0": set(),
}
FLIPPED_BACK = {HIGH_OFFSET + 1, HIGH_OFFSET + 2}
WRITTEN = set(range(0x1FE0, 0x1FE5))

# Of the interim of January 2021 no kernel side is known; for v10 see the test of its own.
REVISIONS = [name for name in uapi.REVISIONS if name not in {"interim-2021-01", "v10"}]


class Machine:
    """A scratch VM, what tells its private pages, and who hears its announcements."""

    def __init__(
        self, vm: ScratchVm, private: PrivateSource, tracker: MapGpaTracker | None
    ) -> None:
        self.vm = vm
        self.private = private
        self.tracker = tracker
        self.maps = GuestMaps(vm.layout)

    def run_to_tick(self) -> None:
        on_flip = self.tracker.apply if self.tracker else None
        guest = GuestThread(self.vm.vcpu, on_flip=on_flip, ticks_per_s=1e-3)
        with guest:  # at this pace it waits after its first tick until it is stopped
            guest.wait(1, timeout_s=10)


def by_ioctl(backend: Backend, revision: str) -> Iterator[Machine]:
    with KvmSystem.open(backend) as system, system.create_vm() as scratch:
        chosen = offered_revisions(scratch).choose(revision)
    with ScratchVm(backend) as vm:
        yield Machine(vm, PageEncSource(vm.vm, chosen), None)


def by_tracker(backend: Backend) -> Iterator[Machine]:
    with ScratchVm(backend) as vm:
        vm.deliver_hypercalls()
        tracker = MapGpaTracker(vm.layout.slots)
        yield Machine(vm, tracker, tracker)


@contextmanager
def machine_by(way: str) -> Iterator[Machine]:
    kind, _, revision = way.partition(":")
    match kind:
        case "fake":
            yield from by_ioctl(FakeBackend(fakekvm.host_named(f"sev-{revision}")), revision)
        case "overlay":
            need_kvm()
            yield from by_ioctl(OverlayBackend(LocalBackend(), revision, FLIP_PORT), revision)
        case "exits":
            yield from by_tracker(FakeBackend(fakekvm.Host()))
        case "ports":
            need_kvm()
            yield from by_tracker(LocalBackend())


WAYS = [
    "exits",
    pytest.param("ports", marks=pytest.mark.kvm),
    *(f"fake:{name}" for name in REVISIONS),
    *(
        pytest.param(f"overlay:{name}", marks=pytest.mark.kvm)
        for name in REVISIONS
        if name != "rfc-2018"  # asks by memslot, which only the KVM that has the slots can answer
    ),
]


@pytest.fixture(params=WAYS)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    with machine_by(request.param) as machine:
        machine.vm.load(PROGRAM)
        yield machine


def shared_pages(machine: Machine, block: str) -> set[int]:
    private = machine.maps.private[block]
    return {int(page) for page in np.flatnonzero(~private.at(np.arange(private.npages)))}


def dirty_pages(machine: Machine, block: str) -> set[int]:
    dirty = machine.maps.dirty[block]
    return {int(page) for page in np.flatnonzero(dirty.at(np.arange(dirty.npages)))}


def test_flips_reach_the_maps_and_flipped_pages_are_dirty(machine: Machine) -> None:
    dirty = machine.vm.dirty_source()
    machine.run_to_tick()
    machine.maps.sync(dirty, machine.private)
    for block, shared in FIRST_SHARED.items():
        assert shared_pages(machine, block) == shared
    assert dirty_pages(machine, "ram") == FIRST_SHARED["ram"]
    assert dirty_pages(machine, "dimm0") == WRITTEN
    machine.maps.clear_dirty()

    machine.run_to_tick()
    report = machine.maps.sync(dirty, machine.private)
    assert shared_pages(machine, "ram") == FIRST_SHARED["ram"] - FLIPPED_BACK
    assert dirty_pages(machine, "ram") == FLIPPED_BACK, "no write came with these flips"
    assert report.flipped_pages == len(FLIPPED_BACK)


def test_the_overlay_hears_hypercalls_where_the_kvm_below_delivers_them() -> None:
    """As on a host with SVM or VMX; here the KVM below is a fake one without a bitmap."""
    below = FakeBackend(fakekvm.Host())
    backend = OverlayBackend(below, "v2-2019", FLIP_PORT)
    with ScratchVm(backend) as vm:
        vm.deliver_hypercalls()
        below.kernel.load_guest(vm.vm.fd, 0, script_of(PROGRAM))
        machine = Machine(vm, PageEncSource(vm.vm, uapi.REVISIONS["v2-2019"]), None)
        machine.run_to_tick()
        machine.maps.sync(vm.dirty_source(), machine.private)
        assert shared_pages(machine, "ram") == FIRST_SHARED["ram"]
    assert backend.flips_seen == 3


def test_v10_itself_takes_a_page_too_many_on_each_side_of_a_flip() -> None:
    """Its remove_shared_region reads exclusive ends as inclusive: what it says is what is read."""
    with machine_by("fake:v10") as machine:
        machine.vm.load(PROGRAM)
        machine.run_to_tick()
        machine.maps.sync(machine.vm.dirty_source(), machine.private)
        lost = FIRST_SHARED["ram"] - shared_pages(machine, "ram")
        assert lost == {HIGH_OFFSET + 0x1F, HIGH_OFFSET + 0x25}


def test_rom_is_taken_for_shared_whatever_the_kernel_says(machine: Machine) -> None:
    machine.run_to_tick()
    report = machine.maps.sync(machine.vm.dirty_source(), machine.private)
    assert len(shared_pages(machine, "bios")) == 32
    assert {block.block: block.override for block in report.blocks}["bios"] == "shared"
    assert [slot.slot_id for slot in report.unlogged_slots] == [1]


@pytest.mark.kvm
def test_the_overlay_hides_the_announcement_and_counts_it() -> None:
    need_kvm()
    backend = OverlayBackend(LocalBackend(), "v9", FLIP_PORT)
    with ScratchVm(backend) as vm:
        vm.load((Flip(0x100, 1, private=False), Flip(0x100, 1, private=True), Tick()))
        with GuestThread(vm.vcpu, ticks_per_s=1e-3) as guest:
            guest.wait(1, timeout_s=10)
    assert backend.flips_seen == 2


@pytest.mark.kvm
def test_the_overlay_answers_only_its_own_revision() -> None:
    need_kvm()
    backend = OverlayBackend(LocalBackend(), "v9", FLIP_PORT)
    with KvmSystem.open(backend) as system, system.create_vm() as vm:
        offer = offered_revisions(vm)
        assert {revision.name for revision in offer.candidates} >= {"v9"}
        with pytest.raises(NotSupported, match="v2-2019"):
            offer.choose("v2-2019")
