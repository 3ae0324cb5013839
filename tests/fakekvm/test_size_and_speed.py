"""What a fake VM costs. The limits are lax: they catch a loop over pages, not a slow machine."""

from __future__ import annotations

import os
import resource
import timeit
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import Host, guests
from fakekvm.processmemory import ProcessMemory
from tests.fakekvm import raw
from tests.fakekvm.raw import LOG, PAGE, FakeMachine, Guest

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.alone

GIB_PAGES = 1 << 18


def best_times(*calls: Callable[[], object], repeat: int = 15, number: int = 100) -> list[float]:
    """Seconds for one of each call, undisturbed: taken in turn, without garbage collection."""
    rounds = [
        [timeit.timeit(call, number=number) / number for call in calls] for _ in range(repeat)
    ]
    return [min(times) for times in zip(*rounds, strict=True)]


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_reading_the_log_of_a_gibibyte_costs_little_more_than_the_copy(fake: FakeMachine) -> None:
    guest = Guest(fake, npages=GIB_PAGES)
    out = np.zeros(GIB_PAGES // 64, "<u8")
    argument = raw.dirty_log(0, out.ctypes.data)
    memory = ProcessMemory(os.getpid())
    source = np.ones_like(out)

    def bare() -> None:
        memory.read(argument.address, 16)
        memory.write_array(out.ctypes.data, source)
        source.fill(1)

    kernel, vm, address = fake.kernel, guest.vm, argument.address
    seconds, bare_seconds = best_times(lambda: kernel.ioctl(vm, raw.GET_DIRTY_LOG, address), bare)
    assert seconds < 2.5 * bare_seconds
    assert seconds < 200e-6


def test_a_tebibyte_takes_no_more_than_its_bitmaps_and_the_pages_touched() -> None:
    npages = 1 << 28
    bitmap_bytes = npages // 8
    with FakeMachine(Host(enc_revision="v2-2019", sev=True)) as fake:
        before = resident_bytes()
        vm = raw.new_vm(fake)
        area = raw.Area(npages)
        form = raw.region(0, LOG, 0, npages * PAGE, area.address)
        assert fake.ioctl(vm, raw.SET_REGION, form) == 0
        vcpu = raw.number(fake.ioctl(vm, raw.CREATE_VCPU, 0))
        writes, flip = guests.WritePages(range(64), 1), guests.Flip(0, npages, private=False)
        fake.kernel.load_guest(vm, 0, [writes, flip])
        assert fake.ioctl(vcpu, raw.RUN) == 0
        out = np.empty(npages // 64, "<u8")
        log = raw.dirty_log(0, out.ctypes.data)
        assert fake.ioctl(vm, raw.GET_DIRTY_LOG, log) == 0
        assert int(out[0]) == (1 << 64) - 1
        assert not out[1:].any()
        # Dirty bitmap, encryption bitmap, and the caller's own.
        assert resident_bytes() - before < 3 * bitmap_bytes + (8 << 20)


def test_a_large_guest_that_does_nothing_takes_nothing(fake: FakeMachine) -> None:
    vm = raw.new_vm(fake)
    tracemalloc.start()
    before = resident_bytes()
    form = raw.region(0, LOG, 0, 1 << 40, PAGE)
    assert fake.ioctl(vm, raw.SET_REGION, form) == 0
    assert tracemalloc.get_traced_memory()[0] < (1 << 28) // 8 + (1 << 20)
    tracemalloc.stop()
    assert resident_bytes() - before < 4 << 20


def writing(fake: FakeMachine, npages: int) -> Callable[[], None]:
    """What makes a guest with a slot of that size write 512 pages."""
    vm = raw.new_vm(fake)
    area = raw.Area(npages)
    form = raw.region(0, LOG, 0, npages * PAGE, area.address)
    assert fake.ioctl(vm, raw.SET_REGION, form) == 0
    vcpu = raw.number(fake.ioctl(vm, raw.CREATE_VCPU, 0))
    step = guests.WritePages(range(512), 1)

    def run(_area: raw.Area = area) -> None:  # holds the memory that is written
        fake.kernel.load_guest(vm, 0, [step])
        fake.kernel.ioctl(vcpu, raw.RUN, 0)

    return run


def test_a_write_costs_no_more_in_a_large_slot() -> None:
    with FakeMachine() as fake:
        large, small = writing(fake, 1 << 28), writing(fake, 512)
        large_seconds, small_seconds = best_times(large, small, repeat=9, number=3)
    assert large_seconds < 3 * small_seconds
