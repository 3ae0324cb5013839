"""Every errno with a hint is one that a KVM really gives: provoked, on the fake and for real."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

import fakekvm
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.call import HINTS
from kvmenc.errors import HostError
from kvmenc.guest.scratch import GuestRam
from kvmenc.kvm import KvmSystem, Vm
from kvmenc.memory.slots import MemSlot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvmenc.backend import Backend

NPAGES = 100


@dataclass
class Kvm:
    """A system, a VM with one logged slot, and one with dirty rings."""

    system: KvmSystem
    vm: Vm
    ringed: Vm
    slot: MemSlot

    def region2(self) -> None:
        region = uapi.kvm_userspace_memory_region2(slot=5, memory_size=4096, guest_phys_addr=1)
        self.vm.ioctl(uapi.KVM_SET_USER_MEMORY_REGION2, region)

    def get(self, vm: Vm, key: int, bitmap: int = 0) -> None:
        arg = uapi.kvm_dirty_log(slot=key)
        arg.dirty_bitmap = bitmap
        vm.ioctl(uapi.KVM_GET_DIRTY_LOG, arg)

    def clear(self, vm: Vm, key: int, npages: int = NPAGES) -> None:
        vm.ioctl(uapi.KVM_CLEAR_DIRTY_LOG, uapi.kvm_clear_dirty_log(slot=key, num_pages=npages))


@pytest.fixture
def kvm(backend: Backend) -> Iterator[Kvm]:
    ram = GuestRam("ram", NPAGES)
    slot = MemSlot(0, 0x100, NPAGES, ram.address)
    with (
        KvmSystem.open(backend) as system,
        system.create_vm() as vm,
        system.create_vm() as ringed,
        vm.create_vcpu(0),
    ):
        vm.set_slot(slot)
        ringed.enable_dirty_ring(65536)
        ringed.set_slot(slot)
        yield Kvm(system, vm, ringed, slot)
    ram.close()


PROVOKE: dict[tuple[str, int], Callable[[Kvm], object]] = {
    ("KVM_CREATE_VM", errno.EINVAL): lambda kvm: kvm.system.create_vm(63),
    ("KVM_CREATE_VCPU", errno.EEXIST): lambda kvm: kvm.vm.create_vcpu(0),
    ("KVM_CREATE_VCPU", errno.EINVAL): lambda kvm: kvm.vm.create_vcpu(1 << 20),
    ("KVM_SET_USER_MEMORY_REGION", errno.EEXIST): lambda kvm: kvm.vm.set_slot(
        MemSlot(1, 0x101, 1, kvm.slot.userspace_addr)
    ),
    ("KVM_SET_USER_MEMORY_REGION", errno.EINVAL): lambda kvm: kvm.vm.set_slot(
        MemSlot(1, 0x1000, 1, kvm.slot.userspace_addr + 1)
    ),
    ("KVM_SET_USER_MEMORY_REGION2", errno.EINVAL): lambda kvm: kvm.region2(),
    ("KVM_GET_DIRTY_LOG", errno.ENOENT): lambda kvm: kvm.get(kvm.vm, 7),
    ("KVM_GET_DIRTY_LOG", errno.ENXIO): lambda kvm: kvm.get(kvm.ringed, 0),
    ("KVM_GET_DIRTY_LOG", errno.EINVAL): lambda kvm: kvm.get(kvm.vm, 9 << 16),
    ("KVM_GET_DIRTY_LOG", errno.EFAULT): lambda kvm: kvm.get(kvm.vm, 0),
    ("KVM_CLEAR_DIRTY_LOG", errno.ENOENT): lambda kvm: kvm.clear(kvm.vm, 7),
    ("KVM_CLEAR_DIRTY_LOG", errno.ENXIO): lambda kvm: kvm.clear(kvm.ringed, 0),
    ("KVM_CLEAR_DIRTY_LOG", errno.EINVAL): lambda kvm: kvm.clear(kvm.vm, 0, 63),
    ("KVM_ENABLE_CAP", errno.EINVAL): lambda kvm: kvm.vm.enable_cap(9999),
    ("KVM_ENABLE_CAP", errno.E2BIG): lambda kvm: kvm.vm.enable_dirty_ring(1 << 30),
    ("KVM_RESET_DIRTY_RINGS", errno.EINVAL): lambda kvm: kvm.vm.reset_dirty_rings(),
}

# Not to be had at will: a kernel out of memory, and a posting's own refusals.
UNPROVOKED = {
    ("KVM_CREATE_VM", errno.ENOMEM),
    ("KVM_GET_PAGE_ENC_BITMAP", errno.EINVAL),
    ("KVM_GET_PAGE_ENC_BITMAP", errno.ENOMEM),
}

# Of SEV guests: provoked in test_sev.
SEV_ROWS = {row for row in HINTS if row[0].startswith("KVM_MEMORY_ENCRYPT_")}


def test_every_hint_is_provoked_or_listed_with_a_reason() -> None:
    assert set(PROVOKE) | UNPROVOKED | SEV_ROWS == set(HINTS)


@pytest.mark.parametrize("row", PROVOKE, ids=lambda row: f"{row[0]}-{errno.errorcode[row[1]]}")
def test_the_errno_comes_with_its_hint(kvm: Kvm, row: tuple[str, int]) -> None:
    ioctl, number = row
    with pytest.raises(HostError) as caught:
        PROVOKE[row](kvm)
    text = str(caught.value)
    assert text.startswith(f"{ioctl}(")
    assert f"failed: {errno.errorcode[number]}: {HINTS[row]}" in text


def test_a_range_too_large_for_the_kernel_is_enomem() -> None:
    backend = FakeBackend(fakekvm.host_named("sev-v2-2019"))
    with KvmSystem.open(backend) as system, system.create_vm() as vm:
        arg = uapi.kvm_page_enc_bitmap(start_gfn=0, num_pages=(1 << 25) + 1)
        with pytest.raises(HostError, match="ENOMEM: the range is too large for the kernel"):
            vm.ioctl(uapi.REVISIONS["v2-2019"].get, arg)
