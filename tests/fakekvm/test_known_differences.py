"""Each known difference, shown: one that is gone must leave the list."""

from __future__ import annotations

import os
import struct
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.fakekvm import known_differences as known
from tests.fakekvm import lockstep, raw
from tests.fakekvm.raw import LOG, PAGE, Buffer, FakeMachine, Guest, RealMachine
from tests.support import need_kvm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm import Host
    from tests.fakekvm.raw import Machine

pytestmark = pytest.mark.kvm

CAP_HALT_POLL, CAP_GUEST_MEMFD_FLAGS = 182, 244
GET_MP_STATE = 0x8004AE98
FIOCLEX = 0x5451
CR4 = 248  # in struct kvm_sregs


def other_capabilities(machine: Machine) -> object:
    vm = raw.new_vm(machine)
    return machine.ioctl(vm, raw.ENABLE_CAP, raw.enable_cap(CAP_HALT_POLL, 0))


def other_requests(machine: Machine) -> object:
    return machine.ioctl(Guest(machine).vcpu, GET_MP_STATE, Buffer(bytes(4)))


def cpuid(machine: Machine) -> object:
    leaves = Buffer(struct.pack("<II", 256, 0) + bytes(256 * 40))
    result = machine.ioctl(machine.open(), raw.GET_SUPPORTED_CPUID, leaves)
    return result, leaves.bytes


def _registers(guest: Guest) -> tuple[int, ...]:
    registers = Buffer(bytes(0x90))
    assert guest.machine.ioctl(guest.vcpu, raw.GET_REGS, registers) == 0
    return struct.unpack("<18Q", registers.bytes)


def code(machine: Machine) -> object:
    guest = Guest(machine)
    before = _registers(guest)
    guest.write([5])
    return _registers(guest)[0] == before[0]  # rax


def segment_registers(machine: Machine) -> object:
    guest = Guest(machine)
    sregs = Buffer(bytes(0x138))
    machine.ioctl(guest.vcpu, raw.GET_SREGS, sregs)
    wrong = bytearray(sregs.bytes)
    wrong[CR4 : CR4 + 8] = b"\xff" * 8
    return machine.ioctl(guest.vcpu, raw.SET_SREGS, Buffer(bytes(wrong)))


def virtual_8086_mode(machine: Machine) -> object:
    guest = Guest(machine)
    wanted = struct.pack("<18Q", *[0] * 17, known.VM86)
    machine.ioctl(guest.vcpu, raw.SET_REGS, Buffer(wanted))
    return _registers(guest)[17]


def interrupts_in_kvm_run(machine: Machine) -> object:
    guest = Guest(machine)
    guest.write([5])
    return guest.run_area[12:32]


def one_byte(machine: Machine) -> object:
    guest = Guest(machine, npages=64)
    guest.write([70])
    return struct.unpack_from("<QQIB", guest.run_area, 32)


def rewritten_pages_in_a_ring(machine: Machine) -> object:
    guest = Guest(machine, ring_bytes=1 << 14)
    guest.write([5, 5])
    return guest.entries()[:2]


def past_a_rings_soft_limit(machine: Machine) -> object:
    guest = Guest(machine, ring_bytes=1 << 14, npages=100)
    for _ in range(10):
        guest.write([page for page in range(100) if page != 1])  # where the code is
    return sum(flags for flags, _, _ in guest.entries())


def memory_that_is_not_there(machine: Machine) -> object:
    guest = Guest(machine, npages=64)
    nowhere = raw.region(1, LOG, 100 * PAGE, 8 * PAGE, PAGE)
    assert machine.ioctl(guest.vm, raw.SET_REGION, nowhere) == 0
    return guest.write([101]), guest.get_log(slot=1)


def guest_memfd(machine: Machine) -> object:
    vm = raw.new_vm(machine)
    wanted = raw.guest_memfd(PAGE, flags=1)  # GUEST_MEMFD_FLAG_MMAP
    memfd = raw.number(machine.ioctl(vm, raw.CREATE_GUEST_MEMFD, wanted))
    return lockstep.map_file(memfd, PAGE, 3, known.MAP_SHARED, 0)


def a_vcpus_mapping(machine: Machine) -> object:
    guest = Guest(machine, ring_bytes=1 << 14)
    return lockstep.map_file(guest.vcpu, PAGE, 3, 2, 64 * PAGE)


def executable_mappings(machine: Machine) -> object:
    guest = Guest(machine)
    fds = (machine.open(), guest.vcpu)
    return [lockstep.map_file(fd, PAGE, known.PROT_EXEC, known.MAP_SHARED, 0) for fd in fds]


def other_system_calls(machine: Machine) -> object:
    vm = raw.new_vm(machine)
    return machine.ioctl(vm, FIOCLEX), Path(f"/proc/self/fd/{vm}").readlink().name


def duplicated_descriptors(machine: Machine) -> object:
    copy = os.dup(raw.new_vm(machine))
    try:
        return machine.ioctl(copy, raw.CHECK_EXTENSION, 10)
    finally:
        os.close(copy)


SHOWN: dict[str, Callable[[Machine], object]] = {
    "other capabilities": other_capabilities,
    "other requests": other_requests,
    "CPUID": cpuid,
    "code": code,
    "segment registers": segment_registers,
    "virtual 8086 mode": virtual_8086_mode,
    "interrupts in kvm_run": interrupts_in_kvm_run,
    "one byte": one_byte,
    "rewritten pages in a ring": rewritten_pages_in_a_ring,
    "past a ring's soft limit": past_a_rings_soft_limit,
    "memory that is not there": memory_that_is_not_there,
    "guest_memfd": guest_memfd,
    "a vCPU's mapping": a_vcpus_mapping,
    "executable mappings": executable_mappings,
    "other system calls": other_system_calls,
    "duplicated descriptors": duplicated_descriptors,
}
ON_PVM = ("virtual 8086 mode", "one byte", "memory that is not there", "past a ring's soft limit")
NOT_SHOWN = {"running out of memory"}  # it would take the machine's


def test_every_difference_is_shown() -> None:
    assert set(SHOWN) | NOT_SHOWN == set(known.DIFFERENCES)


@pytest.fixture(scope="module")
def host() -> Host:
    need_kvm()
    return lockstep.host_like_this_one()


@pytest.mark.parametrize("name", SHOWN)
def test_they_differ(name: str, host: Host) -> None:
    if name in ON_PVM and not Path("/sys/module/kvm_pvm").exists():
        pytest.skip("on a KVM that emulates code in real mode only")
    if name == "guest_memfd" and not host.has(CAP_GUEST_MEMFD_FLAGS) & 1:
        pytest.skip("this kernel's guest_memfds cannot be mapped")
    if name == "rewritten pages in a ring":  # the one that a host can be told of
        host = replace(host, ring_logs_every_write=not host.ring_logs_every_write)
    with FakeMachine(host) as fake, RealMachine() as real:
        assert SHOWN[name](fake) != SHOWN[name](real)
