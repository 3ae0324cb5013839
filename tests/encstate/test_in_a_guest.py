"""The sources on a whole (fake) KVM: a vCPU announces flips, a sync finds them."""

from __future__ import annotations

import errno
import mmap
from contextlib import ExitStack, contextmanager
from ctypes import addressof, c_char
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import Kernel, guests
from fakekvm.faults import Fault
from fakekvm.host import host_named
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.encstate.hypercalls import MapGpaTracker
from kvmenc.encstate.pageenc import PageEncSource, offered_revisions
from kvmenc.errors import IoctlError
from kvmenc.kvm import Exit, KvmSystem, Vcpu, Vm
from kvmenc.memory.slots import MemSlot
from tests.encstate.bits import bits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

LOW, HIGH = 100, 130

# Across the hole, within a word, and back again; no part of a range turns back, for v10's sake.
SCRIPT = [
    guests.Flip(90, 20, private=False),
    guests.Flip(0x105, 3, private=False),
    guests.Flip(0x17F, 1, private=False),
    guests.Flip(0x105, 3, private=True),
]
EXPECTED = [[1] * 90 + [0] * 10, [1] * 127 + [0] + [1] * 2]


@contextmanager
def guest(host: str) -> Iterator[tuple[FakeBackend, KvmSystem, Vm, list[MemSlot]]]:
    backend = FakeBackend(host_named(host))
    with ExitStack() as stack:
        ram = mmap.mmap(-1, (LOW + HIGH) * 4096)
        stack.callback(ram.close)
        address = addressof(pin := c_char.from_buffer(ram))
        del pin
        system = stack.enter_context(KvmSystem.open(backend))
        vm = stack.enter_context(system.create_vm())
        slots = [MemSlot(0, 0, LOW, address), MemSlot(1, 0x100, HIGH, address + LOW * 4096)]
        for slot in slots:
            vm.set_slot(slot)
        yield backend, system, vm, slots


def state(source: PageEncSource | MapGpaTracker, slots: list[MemSlot]) -> list[list[int]]:
    return [bits_of(words, slot.npages) for slot, words in source.read(slots)]


@pytest.mark.parametrize("revision", uapi.REVISIONS)
def test_what_a_vcpu_announced_is_read_back_in_every_revision(revision: str) -> None:
    with guest(f"sev-{revision}") as (backend, system, vm, slots), vm.create_vcpu() as vcpu:
        backend.kernel.load_guest(vm.fd, 0, SCRIPT)
        assert vcpu.run(timeout_s=10) == Exit.HLT
        with system.create_vm() as scratch:
            chosen = offered_revisions(scratch).choose(revision)
        assert state(PageEncSource(vm, chosen), slots) == EXPECTED


def run_to_halt(vcpu: Vcpu, tracker: MapGpaTracker) -> int:
    """Answer every announcement; returns how many there were."""
    exits = 0
    while vcpu.run(timeout_s=10) == Exit.HYPERCALL:
        tracker.handle_exit(vcpu.state)
        exits += 1
    return exits


def test_what_a_vcpu_announced_by_exits_is_tracked() -> None:
    with guest("mainline") as (backend, _, vm, slots), vm.create_vcpu() as vcpu:
        vm.enable_cap(uapi.KVM_CAP_EXIT_HYPERCALL, 1 << uapi.KVM_HC_MAP_GPA_RANGE)
        backend.kernel.load_guest(vm.fd, 0, SCRIPT)
        tracker = MapGpaTracker(slots)
        assert run_to_halt(vcpu, tracker) == len(SCRIPT)
        assert state(tracker, slots) == EXPECTED
        assert vcpu.registers().rax == 0


def test_a_mainline_kernel_offers_no_revision() -> None:
    with guest("mainline") as (_, system, _, _), system.create_vm() as scratch:
        offer = offered_revisions(scratch)
    assert not offer.candidates
    assert not offer.unclear


# A guest of 12 GiB and a bit: 393,225 bytes of bitmap.
LARGE = MemSlot(0, 0x1000, (3 << 20) + 65, 1 << 32)
FAR = guests.Flip(0x1000 + (3 << 20) - 3, 10, private=False)


def shared_where_memory_is_short(above_bytes: int) -> tuple[list[int], int]:
    """Which of its pages are shared, and how many bitmaps were refused for their size."""
    fault = Fault(request="KVM_GET_PAGE_ENC_BITMAP", above_bytes=above_bytes, error=errno.ENOMEM)
    kernel = Kernel(host_named("sev-v9"), faults=[fault])
    with KvmSystem.open(FakeBackend(kernel)) as system, system.create_vm() as vm:
        vm.set_slot(LARGE)
        with vm.create_vcpu() as vcpu:
            kernel.load_guest(vm.fd, 0, [FAR])
            assert vcpu.run(timeout_s=10) == Exit.HLT
        source = PageEncSource(vm, uapi.REVISIONS["v9"])
        list(source.read([LARGE]))
        ((_, words),) = source.read([LARGE])
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: LARGE.npages]
        return np.flatnonzero(bits == 0).tolist(), kernel.faults.struck[fault]


@pytest.mark.parametrize(("above_bytes", "refusals"), [(1 << 17, 0), (1 << 16, 1), (4096, 5)])
def test_where_memory_is_short_a_bitmap_is_read_in_smaller_pieces(
    above_bytes: int, refusals: int
) -> None:
    """The size that is given is remembered: the second reading is refused nothing."""
    expected = list(range(FAR.gfn - LARGE.base_gfn, FAR.gfn - LARGE.base_gfn + FAR.npages))
    assert shared_where_memory_is_short(above_bytes) == (expected, refusals)


def test_where_there_is_not_a_page_of_memory_that_is_an_error() -> None:
    with pytest.raises(IoctlError, match=r"KVM_GET_PAGE_ENC_BITMAP\(.*num_pages=32768\).*ENOMEM"):
        shared_where_memory_is_short(4095)
