"""System, VM and vCPU handles: what they answer, and how they fail."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc import uapi
from kvmenc.errors import BitmapSizeError, IoctlError, NotSupported, SlotNotLogged, WrongProcess
from kvmenc.guest.scratch import PAGE, GuestRam
from kvmenc.kvm import KvmSystem, Vm
from kvmenc.memory.slots import MemSlot

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.backend import Backend

NPAGES = 100  # not a multiple of 64: the kernel writes two words


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    ram = GuestRam("ram", NPAGES)
    yield ram
    ram.close()


@pytest.fixture
def vm(backend: Backend) -> Iterator[Vm]:
    with KvmSystem.open(backend) as system, system.create_vm() as vm:
        yield vm


@pytest.fixture
def slot(ram: GuestRam) -> MemSlot:
    return MemSlot(0, 0x100, NPAGES, ram.address)


def test_capabilities_of_a_kvm_that_can_log_dirty_pages(backend: Backend) -> None:
    with KvmSystem.open(backend) as system:
        assert system.check_extension(uapi.KVM_CAP_NR_MEMSLOTS) >= 32
        assert system.check_extension(uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & 1
        assert system.check_extension(9999) == 0
        assert system.vcpu_mmap_bytes >= PAGE


def test_a_fresh_log_is_clean_and_whole_words_are_written(vm: Vm, slot: MemSlot) -> None:
    vm.set_slot(slot)
    out = np.full(3, -1, dtype="<i8").view("<u8")
    vm.dirty_log(slot, out)
    assert out.tolist() == [0, 0, 2**64 - 1]


def test_the_vms_own_buffer_is_allocated_once(vm: Vm, slot: MemSlot) -> None:
    vm.set_slot(slot)
    first = vm.dirty_log(slot)
    assert vm.dirty_log(slot) is first


def test_a_short_bitmap_is_refused_before_the_kernel_could_write_past_it(
    vm: Vm, slot: MemSlot
) -> None:
    vm.set_slot(slot)
    with pytest.raises(BitmapSizeError, match="needs 16 bytes, got 8"):
        vm.dirty_log(slot, np.zeros(1, dtype="<u8"))
    with pytest.raises(BitmapSizeError, match="needs 16 bytes, got 8"):
        vm.clear_dirty_log(slot, np.zeros(1, dtype="<u8"))
    with pytest.raises(TypeError, match="64-bit words"):
        vm.dirty_log(slot, np.zeros(2, dtype="<u4"))


@pytest.mark.parametrize(
    ("npages", "first_page", "ok"),
    [
        (64, 0, True),
        (36, 64, True),
        (100, 0, True),
        (0, 0, True),
        (64, 1, False),
        (63, 0, False),
        (65, 0, False),
        (101, 0, False),
        (0, 128, False),
    ],
)
def test_alignment_of_clear(vm: Vm, slot: MemSlot, npages: int, first_page: int, ok: bool) -> None:
    vm.set_slot(slot)
    words = np.zeros(2, dtype="<u8")
    if ok:
        vm.clear_dirty_log(slot, words, first_page, npages)
        return
    with pytest.raises(IoctlError, match=r"first_page must be a multiple of 64") as caught:
        vm.clear_dirty_log(slot, words, first_page, npages)
    assert caught.value.errno == errno.EINVAL


def test_a_slot_without_logging_is_said_to_have_none(vm: Vm, ram: GuestRam) -> None:
    unlogged = MemSlot(0, 0x100, NPAGES, ram.address, log_dirty=False)
    vm.set_slot(unlogged)
    with pytest.raises(SlotNotLogged, match=r"KVM_GET_DIRTY_LOG\(slot=0\) failed: ENOENT: no such"):
        vm.dirty_log(unlogged)


def test_a_deleted_slot_has_no_log(vm: Vm, slot: MemSlot) -> None:
    vm.set_slot(slot)
    vm.delete_slot(slot)
    with pytest.raises(SlotNotLogged):
        vm.dirty_log(slot)


def test_overlapping_slots_are_refused_by_the_kernel(vm: Vm, slot: MemSlot, ram: GuestRam) -> None:
    vm.set_slot(slot)
    with pytest.raises(IoctlError, match="EEXIST: another memslot covers") as caught:
        vm.set_slot(MemSlot(1, 0x100 + NPAGES - 1, 1, ram.address))
    assert caught.value.errno == errno.EEXIST


def test_an_unknown_ioctl_is_not_supported(vm: Vm) -> None:
    with pytest.raises(NotSupported, match=r"KVM_GET_PAGE_ENC_BITMAP.*ENOTTY"):
        vm.ioctl(uapi.REVISIONS["v2-2019"].get, uapi.kvm_page_enc_bitmap())


def test_an_argument_of_the_wrong_size_never_reaches_the_kernel(vm: Vm) -> None:
    with pytest.raises(TypeError, match="KVM_GET_DIRTY_LOG takes 16 bytes"):
        vm.ioctl(uapi.KVM_GET_DIRTY_LOG, uapi.kvm_clear_dirty_log())


def test_every_method_of_a_closed_vm_says_ebadf(vm: Vm, slot: MemSlot) -> None:
    vm.close()
    for method in (
        lambda: vm.set_slot(slot),
        lambda: vm.dirty_log(slot),
        lambda: vm.create_vcpu(0),
        lambda: vm.enable_cap(1),
        vm.reset_dirty_rings,
    ):
        with pytest.raises(IoctlError, match="EBADF: the file descriptor is closed"):
            method()


def test_a_vm_fd_of_another_process_is_explained(vm: Vm, slot: MemSlot) -> None:
    vm.set_slot(slot)
    child = os.fork()
    if child == 0:
        try:
            vm.dirty_log(slot)
            os._exit(1)
        except WrongProcess as error:
            told = "EIO" in str(error) and "process that created the VM" in str(error)
            os._exit(0 if told else 2)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_closing_twice_and_leaving_the_block_is_harmless(backend: Backend) -> None:
    with KvmSystem.open(backend) as system:
        vm = system.create_vm()
        vcpu = vm.create_vcpu()
        vcpu.close()
        vcpu.close()
        vm.close()


def test_an_unoffered_vm_type_is_refused(backend: Backend) -> None:
    with KvmSystem.open(backend) as system, pytest.raises(IoctlError, match=r"EINVAL.*VM type"):
        system.create_vm(63)
