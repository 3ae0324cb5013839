"""The dirty log of a real VM in another process, read without taking a bit of it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc import procfs, uapi
from kvmenc.backend.tracee import TraceeBackend
from kvmenc.dirtysource import PeekSource
from kvmenc.errors import HostError, SlotNotLogged
from kvmenc.kvm import KvmSystem, Vm
from kvmenc.memory.words import mask_tail
from kvmenc.tracee import Injector, Target
from tests.support import need_kvm
from tests.tracee.vmm import pattern_of, slots_of

if TYPE_CHECKING:
    from collections.abc import Iterator

SEED = 7
NPAGES = [1, 64, 100, 4097, 65536 + 13]
SLOTS = slots_of(NPAGES)

pytestmark = pytest.mark.kvm


@pytest.fixture
def vmm() -> Iterator[subprocess.Popen[str]]:
    need_kvm()
    arguments = [sys.executable, "-m", "tests.tracee.vmm", str(SEED), *map(str, NPAGES)]
    process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def tell(vmm: subprocess.Popen[str], what: str) -> None:
    assert vmm.stdin is not None
    assert vmm.stdout is not None
    vmm.stdin.write(f"{what}\n")
    vmm.stdin.flush()
    assert vmm.stdout.readline() == "done\n"


def peeked(source: PeekSource) -> dict[int, list[int]]:
    found = {}
    for slot, words in source.read(SLOTS):
        mask_tail(words, slot.npages)
        found[slot.key] = words.tolist()
    return found


EXPECTED = {slot.key: pattern_of(slot, SEED).tolist() for slot in SLOTS}


def test_every_bit_is_read_in_one_stop_and_none_is_taken(vmm: subprocess.Popen[str]) -> None:
    target = Target.of(vmm.pid)
    with Injector(target) as injector:
        source = PeekSource(TraceeBackend(injector, SLOTS), target.vm_fd)
        assert peeked(source) == EXPECTED
        stops = len(injector.stop_us)
        assert peeked(source) == EXPECTED
        assert len(injector.stop_us) == stops + 1
        tell(vmm, "clear")
        assert peeked(source) == {slot.key: [0] * len(EXPECTED[slot.key]) for slot in SLOTS}


def test_a_log_that_was_stopped_is_named(vmm: subprocess.Popen[str]) -> None:
    target = Target.of(vmm.pid)
    with Injector(target) as injector:
        source = PeekSource(TraceeBackend(injector, SLOTS), target.vm_fd)
        tell(vmm, "unlog")
        with pytest.raises(SlotNotLogged, match=r"KVM_GET_DIRTY_LOG\(slot=0\) failed: ENOENT"):
            peeked(source)


def test_a_vm_that_ends_is_told(vmm: subprocess.Popen[str]) -> None:
    target = Target.of(vmm.pid)
    with Injector(target) as injector:
        source = PeekSource(TraceeBackend(injector, SLOTS), target.vm_fd)
        vmm.kill()
        with pytest.raises(HostError, match=f"process {vmm.pid} has ended"):
            peeked(source)


def test_the_usual_objects_stand_on_the_other_process(vmm: subprocess.Popen[str]) -> None:
    target = Target.of(vmm.pid)
    with Injector(target) as injector:
        backend = TraceeBackend(injector, SLOTS)
        with (
            KvmSystem.open(backend) as system,
            Vm(backend, target.vm_fd, system.vcpu_mmap_bytes) as vm,
        ):
            assert vm.check_extension(uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & 1
            assert vm.dirty_log(SLOTS[3]).tolist() == EXPECTED[SLOTS[3].key]
            with pytest.raises(HostError, match=r"KVM_CLEAR_DIRTY_LOG.* failed: EPERM"):
                vm.clear_dirty_log(SLOTS[3], np.zeros(65, "<u8"))
    assert target.kvm_fd is not None
    assert procfs.fd_links(vmm.pid)[target.kvm_fd] == "/dev/kvm"
