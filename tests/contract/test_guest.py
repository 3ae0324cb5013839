"""Real guest code on the real kernel, the same program as a script on the fake: same bits."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc.backend import LocalBackend
from kvmenc.guest.program import Flip, Program, Tick, WriteList, WriteRun
from kvmenc.guest.runner import GuestThread
from kvmenc.guest.scratch import BIOS_PAGES, DIMM_PAGES, HIGH_OFFSET, LOW_PAGES, PAGE, ScratchVm
from kvmenc.guest.x86 import FLIP_PORT, TICK_PORT
from kvmenc.kvm import Exit
from tests.support import need_kvm

if TYPE_CHECKING:
    from kvmenc.backend import Backend
    from kvmenc.dirtysource import DirtyLogSource, DirtyRingSource
    from kvmenc.memory.slots import MemSlot

PROGRAM: Program = (
    WriteRun(0x100, 70),
    WriteList((0x9F, 0x8, 0x11FE4, 0x10003, 0x8)),
    Tick(),
)
# By slot: the low slot's pages 8 and 0x9f, the high slot's first 70, the DIMM's 3 and its last.
EXPECTED = {0: {0x8, 0x9F}, 2: set(range(70)), 3: {3, DIMM_PAGES - 1}}


def pages_of(words: np.ndarray, npages: int) -> set[int]:
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")[:npages]
    return {int(page) for page in np.flatnonzero(bits)}


def run_to_tick(machine: ScratchVm) -> None:
    assert machine.vcpu.run(timeout_s=10) == Exit.IO
    assert machine.vcpu.state.io.port == TICK_PORT


def logged(machine: ScratchVm) -> list[MemSlot]:
    return [slot for slot in machine.layout.slots if slot.log_dirty]


def dirty_pages(machine: ScratchVm) -> dict[int, set[int]]:
    source = machine.dirty_source()
    return {
        slot.slot_id: pages_of(words, slot.npages) for slot, words in source.read(logged(machine))
    }


def dirty_of(source: DirtyLogSource | DirtyRingSource, slot: MemSlot) -> list[int]:
    """The slot's dirty pages, read to the end: with manual protect the log is cleared by then."""
    return sorted(*(pages_of(words, slot.npages) for _, words in source.read([slot])))


def contents(machine: ScratchVm, npages: int) -> np.ndarray:
    """The first word of each page of the high slot, as it is now."""
    words = np.frombuffer(machine.ram.area, dtype="<u4").reshape(-1, PAGE // 4)
    return words[HIGH_OFFSET : HIGH_OFFSET + npages, 0].copy()


@pytest.mark.parametrize(
    "tracking",
    [{"manual_protect": False}, {"manual_protect": True}, {"ring_bytes": 65536}],
    ids=["log", "manual", "ring"],
)
def test_exactly_the_pages_written_are_dirty(backend: Backend, tracking: dict[str, int]) -> None:
    with ScratchVm(backend, **tracking) as machine:  # type: ignore[arg-type]
        machine.load(PROGRAM)
        run_to_tick(machine)
        assert dirty_pages(machine) == EXPECTED
        assert dirty_pages(machine) == {0: set(), 2: set(), 3: set()}
        run_to_tick(machine)
        assert dirty_pages(machine) == EXPECTED, "pages written again are dirty again"


def test_with_manual_protect_reading_takes_nothing(backend: Backend) -> None:
    with ScratchVm(backend, manual_protect=True) as machine:
        machine.load(PROGRAM)
        run_to_tick(machine)
        high = machine.layout.slots[2]
        first = machine.vm.dirty_log(high).copy()
        assert pages_of(first, high.npages) == EXPECTED[2]
        assert (machine.vm.dirty_log(high) == first).all()
        only_the_second_word = first[1:2].copy()
        machine.vm.clear_dirty_log(high, only_the_second_word, first_page=64, npages=64)
        assert pages_of(machine.vm.dirty_log(high), high.npages) == set(range(64))


def test_the_guest_really_writes_its_pass_number(backend: Backend) -> None:
    with ScratchVm(backend) as machine:
        machine.load(PROGRAM)
        for _ in range(3):
            run_to_tick(machine)
        at = (HIGH_OFFSET + 69) * PAGE
        assert int.from_bytes(machine.ram.area[at : at + 4], "little") == 2
        assert machine.ram.area[at + PAGE : at + PAGE + 4] == bytes(4)
        assert machine.vcpu.io_value() == 2


def test_a_write_to_a_hole_is_an_mmio_exit_and_dirties_nothing(backend: Backend) -> None:
    with ScratchVm(backend) as machine:
        machine.load((WriteList((LOW_PAGES + 1,)), Tick()))
        assert machine.vcpu.run(timeout_s=10) == Exit.MMIO
        assert machine.vcpu.state.mmio.phys_addr == (LOW_PAGES + 1) * PAGE
        assert not any(dirty_pages(machine).values())


def test_a_write_to_rom_is_an_mmio_exit_and_changes_nothing(backend: Backend) -> None:
    with ScratchVm(backend) as machine:
        machine.load((WriteList((0xE0,)), Tick()))
        assert machine.vcpu.run(timeout_s=10) == Exit.MMIO
        assert machine.bios.area[:] == bytes(BIOS_PAGES * PAGE)


@pytest.mark.kvm
def test_a_flip_is_announced_with_the_hypercalls_registers() -> None:
    need_kvm()
    with ScratchVm(LocalBackend()) as machine:
        machine.load((Flip(0x123, 7, private=True), Flip(0x200, 1, private=False), Tick()))
        seen = []
        for _ in range(2):
            assert machine.vcpu.run(timeout_s=10) == Exit.IO
            assert machine.vcpu.state.io.port == FLIP_PORT
            regs = machine.vcpu.registers()
            seen.append((regs.rax, regs.rbx, regs.rcx, regs.rdx))
        assert seen == [(12, 0x123000, 7, 16), (12, 0x200000, 1, 0)]


def test_a_full_ring_stops_the_vcpu_until_it_is_emptied(backend: Backend) -> None:
    # 256 entries, 64 of them kept in reserve. A tick after every 50 pages: some hosts look at the
    # ring only when the vCPU enters (test_a_ring_that_overflowed_is_not_believed).
    writes = (
        step for first in range(0, 1000, 50) for step in (WriteRun(0x100 + first, 50), Tick())
    )
    with ScratchVm(backend, ring_bytes=PAGE) as machine:
        machine.load(tuple(writes))
        source = machine.dirty_ring_source()
        full = 0

        def empty() -> None:
            nonlocal full
            full += source.collect() > 0

        with GuestThread(machine.vcpu, on_ring_full=empty) as guest:
            guest.wait(20)
        assert full >= 3
        found = {
            slot.slot_id: pages_of(words, slot.npages)
            for slot, words in source.read(logged(machine))
        }
        assert found[2] == set(range(1000))


def test_syncs_beside_a_running_guest_lose_no_page(backend: Backend) -> None:
    """The iteration oracle of the kernel's dirty_log_test: what is newer than its bit is lost."""
    npages = 2000
    with ScratchVm(backend) as machine:
        machine.load((WriteRun(0x100, npages), Tick()))
        high = machine.layout.slots[2]
        copied = contents(machine, npages)
        source = machine.dirty_source()
        with GuestThread(machine.vcpu) as guest:
            for _ in range(20):
                dirty = dirty_of(source, high)
                copied[dirty] = contents(machine, npages)[dirty]
            guest.wait(1)
        dirty = dirty_of(source, high)
        copied[dirty] = contents(machine, npages)[dirty]
        assert (copied == contents(machine, npages)).all()


def test_a_guest_that_never_exits_is_interrupted(backend: Backend) -> None:
    with ScratchVm(backend) as machine:
        machine.load((WriteRun(0x100, 64),))
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [])
        for _ in range(3):
            assert machine.vcpu.run(timeout_s=0.05) == Exit.INTR
        assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == blocked
        assert not signal.sigpending()
