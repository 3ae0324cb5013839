"""The same calls, good and bad, on the fake and on the real kernel: the same answers.

Where /dev/kvm does not open, the fake is held to what a kernel answered when it was asked
(``tests/data/kvm``, by ``python -m tests.fakekvm.record_answers``). The fake's host gets the real
one's capabilities. What may differ is listed in ``known_differences``.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import pytest

from tests.fakekvm import raw
from tests.fakekvm.lockstep import host_like_this_one
from tests.fakekvm.raw import LOG, PAGE, READONLY, Area, Buffer, FakeMachine, Guest, RealMachine
from tests.fakekvm.record_answers import FOLDER, Recorded
from tests.support import need_kvm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm import Host
    from tests.fakekvm.raw import Machine, Result

BAD = (0, 8, 1 << 40, 1 << 63, (1 << 64) - 8)
FAR = 0x4000_0000  # a gpa where no test has memory


def system_calls(machine: Machine) -> list[Result]:
    kvm = machine.open()
    unknown = (0xAEFF, 0x5401, raw.GET_DIRTY_LOG, raw.CREATE_VCPU, 0x4018AEC2)
    types = (6, 31, 32, 63, 64, 1 << 31, 1 << 32, (1 << 64) - 1)
    return [
        machine.ioctl(kvm, raw.GET_API_VERSION),
        machine.ioctl(kvm, raw.GET_API_VERSION, 1),
        machine.ioctl(kvm, raw.GET_VCPU_MMAP_SIZE),
        machine.ioctl(kvm, raw.GET_VCPU_MMAP_SIZE, 1),
        machine.ioctl(kvm, raw.CHECK_EXTENSION | 1 << 32, 10),
        *(machine.ioctl(kvm, raw.CHECK_EXTENSION, cap) for cap in (10, 168, 192, 10 | 1 << 32)),
        *(machine.ioctl(kvm, request) for request in unknown),
        *(machine.ioctl(kvm, raw.CREATE_VM, vm_type) for vm_type in types),
        *(machine.ioctl(kvm, raw.GET_SUPPORTED_CPUID, address) for address in BAD),
        machine.ioctl(kvm, raw.GET_SUPPORTED_CPUID, Buffer(bytes(8))),
        machine.ioctl(kvm, raw.GET_SUPPORTED_CPUID, Buffer(bytes([1]) + bytes(47))),
    ]


def vm_calls(machine: Machine) -> list[Result]:
    vm = raw.new_vm(machine)
    structs = (
        raw.SET_REGION,
        raw.SET_REGION2,
        raw.GET_DIRTY_LOG,
        raw.CLEAR_DIRTY_LOG,
        raw.ENABLE_CAP,
        raw.CREATE_GUEST_MEMFD,
        raw.SET_IDENTITY_MAP_ADDR,
    )
    enc = (0x4010AEBD, 0x4018AEC2, 0x4018AEC3, 0x4018AEC5, 0x4018AEC6, 0x4018AEC8, 0x4018AEC9)
    return [
        *(machine.ioctl(vm, request, address) for request in structs for address in BAD),
        *(machine.ioctl(vm, request) for request in (0xAEFF, 0x5401, raw.RUN, raw.GET_API_VERSION)),
        *(machine.ioctl(vm, request) for request in enc),
        *(machine.ioctl(vm, request, Buffer(bytes(24))) for request in enc),
        *(machine.ioctl(vm, raw.CHECK_EXTENSION, c) for c in (10, 118, 168, 192, 201, 225, 233)),
        machine.ioctl(vm, raw.MEMORY_ENCRYPT_OP),
        machine.ioctl(vm, raw.SET_ATTRIBUTES),
        machine.ioctl(vm, raw.RESET_RINGS),
        *(machine.ioctl(vm, raw.SET_TSS_ADDR, a) for a in (0, 1, 0xFFFFD000, 0xFFFFD001, 1 << 40)),
        machine.ioctl(vm, raw.SET_IDENTITY_MAP_ADDR, Buffer(bytes(8))),
    ]


def vcpu_calls(machine: Machine) -> list[Result]:
    vm = raw.new_vm(machine)
    most = raw.number(machine.ioctl(vm, raw.CHECK_EXTENSION, 128))
    made = [machine.ioctl(vm, raw.CREATE_VCPU, n) for n in (most, 1 << 32, most - 1, 0, 0)]
    vcpu = raw.number(made[3])
    structs = (raw.GET_REGS, raw.SET_REGS, raw.GET_SREGS, raw.SET_SREGS)
    masks = [Buffer(struct.pack("<IQ", size, 0)) for size in (8, 0, 4)]
    registers = Buffer(struct.pack("<18Q", *range(17), 0))
    results = [
        *(made[:2] + made[4:]),
        *(machine.ioctl(vcpu, request, address) for request in structs for address in BAD),
        *(machine.ioctl(vcpu, raw.SET_SIGNAL_MASK, address) for address in (0, 8)),
        *(machine.ioctl(vcpu, raw.SET_SIGNAL_MASK, mask) for mask in masks),
        *(machine.ioctl(vcpu, r) for r in (0xAEFF, 0x5401, raw.GET_DIRTY_LOG, raw.CREATE_VCPU)),
        machine.ioctl(vcpu, raw.RUN, 1),
        machine.ioctl(vcpu, raw.MEMORY_ENCRYPT_OP),
        machine.ioctl(vm, raw.SET_IDENTITY_MAP_ADDR),
        *(machine.ioctl(vcpu, request, registers) for request in (raw.SET_REGS, raw.GET_REGS)),
        registers.bytes.hex(),  # rflags has a bit that is always set
    ]
    machine.close(vcpu)
    results.append(machine.ioctl(vm, raw.CREATE_VCPU, 0))
    return results


def fresh_registers(machine: Machine) -> list[Result]:
    vm = raw.new_vm(machine)
    vcpu = raw.number(machine.ioctl(vm, raw.CREATE_VCPU, 0))
    registers, sregs = Buffer(bytes(0x90)), Buffer(bytes(0x138))
    machine.ioctl(vcpu, raw.GET_REGS, registers)
    machine.ioctl(vcpu, raw.GET_SREGS, sregs)
    values = struct.unpack("<18Q", registers.bytes)
    return [str(values), sregs.bytes.hex()]


def slot_forms(machine: Machine) -> list[Result]:
    vm = raw.new_vm(machine)
    area = Area(16)
    at = area.address
    top = 1 << 47
    forms = [
        (0, 0, 0, 4 * PAGE, at),
        (0, 0, 0, 4 * PAGE, at),
        *((1, flags, FAR, PAGE, at) for flags in (4, 8, 1 << 31)),
        (1, 0, FAR, 100, at),
        (1, 0, FAR + 1, PAGE, at),
        (1, 0, FAR, PAGE, at + 1),
        *((1, 0, FAR, PAGE, address) for address in (1 << 63, top - PAGE, (1 << 64) - PAGE)),
        (1, 0, FAR, 2 * PAGE, top - 2 * PAGE),
        (1, 0, FAR, PAGE, top - 2 * PAGE),
        *((slot, 0, FAR + PAGE, PAGE, at) for slot in (32764, 32767, 65535, 1 << 16, 1 << 31)),
        (2, 0, (1 << 64) - PAGE, PAGE, at),
        (2, 0, (1 << 64) - PAGE, 2 * PAGE, at),
        *((2, 0, (1 << bits) - PAGE, PAGE, at) for bits in (32, 36)),
        (2, 0, 1 << 52, PAGE, at),
        (2, 0, (1 << 52) - PAGE, 2 * PAGE, at),
        (3, 0, 1 << 45, 1 << 43, PAGE),
        (3, 0, 1 << 45, 1 << 62, PAGE),
        (9, 0, 0, 0, 0),
        (0, 8, 0, 0, 0),
        (0, 0, 0, 0, 1),
        (0, 0, 1, 0, 0),
        (0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0),
    ]
    v1 = [machine.ioctl(vm, raw.SET_REGION, raw.region(*form)) for form in forms]
    v2 = [machine.ioctl(vm, raw.SET_REGION2, raw.region2(*form)) for form in forms]
    return v1 + v2


def slot_changes(machine: Machine) -> list[Result]:
    guest = Guest(machine, npages=16, flags=0)
    changes = [
        {"npages": 15, "flags": 0},
        {"npages": 17, "flags": 0},
        {"page": 1, "flags": 0},
        {"flags": READONLY},
        {"flags": LOG | READONLY},
        {"flags": LOG},
        {"gfn": 0x100},
        {"gfn": 0x200, "flags": 0},
        {"slot": 1, "gfn": 0x100},
        {"slot": 1, "gfn": 0x20F},
        {"slot": 1, "gfn": 0x1F1},
        {"slot": 1, "gfn": 0x1F0},
        {"slot": 2, "gfn": 0x100, "npages": 0x300},
        {"slot": 2, "gfn": 0x205, "npages": 2},
        {"slot": 2, "gfn": 0x300, "flags": READONLY},
        {"slot": 2, "gfn": 0x300, "flags": READONLY | LOG},
        {"slot": 2, "gfn": 0x300, "flags": LOG},
        {"slot": 2, "gfn": 0x1F8, "flags": READONLY},
        {"slot": 0, "npages": 0},
        {"slot": 2, "gfn": 0x200, "flags": READONLY},
    ]
    return [guest.region(**change) for change in changes]


def guest_memfds(machine: Machine) -> list[Result]:
    vm, other = raw.new_vm(machine), raw.new_vm(machine)
    area = Area(16)
    at = area.address
    sizes = [(0, 0), (100, 0), (1 << 63, 0), (PAGE, 1 << 8), ((1 << 64) - PAGE, 0)]
    refused = [machine.ioctl(vm, raw.CREATE_GUEST_MEMFD, raw.guest_memfd(*size)) for size in sizes]
    if not machine.ioctl(vm, raw.CHECK_EXTENSION, 234):
        return refused
    wanted = raw.guest_memfd(16 * PAGE)
    mine = raw.number(machine.ioctl(vm, raw.CREATE_GUEST_MEMFD, wanted))
    theirs = raw.number(machine.ioctl(other, raw.CREATE_GUEST_MEMFD, wanted))
    forms = [
        (0, 4, 0, PAGE, at, 0, theirs),
        (0, 4, 0, PAGE, at, 0, 9999),
        (0, 4, 0, PAGE, at, 0, vm),
        (0, 4, 0, PAGE, at, 0, 0),
        (0, 4, 0, PAGE, at, 1, mine),
        (0, 4, 0, 17 * PAGE, at, 0, mine),
        (0, 4, 0, PAGE, at, 16 * PAGE, mine),
        (0, 4, 0, PAGE, at, (1 << 64) - PAGE, mine),
        (0, 5, 0, PAGE, at, 0, mine),
        (0, 6, 0, PAGE, at, 0, mine),
        (0, 4, 1 << 52, PAGE, at, 0, 9999),
        (0, 4, 1 << 52, PAGE, at, 0, mine),
        (0, 4, 0, 2 * PAGE, at, 0, mine),
        (0, 4, 0, 2 * PAGE, at, 0, mine),
        (0, 0, 0, 2 * PAGE, at, 0, 0),
        (1, 4, FAR, PAGE, at, PAGE, mine),
        (1, 4, PAGE, PAGE, at, 0, 9999),
        (1, 4, FAR, PAGE, at, 2 * PAGE, mine),
        (0, 4, 0, 0, 0, 0, mine),
        (2, 4, 0, 2 * PAGE, at, 0, mine),
    ]
    return refused + [machine.ioctl(vm, raw.SET_REGION2, raw.region2(*form)) for form in forms]


def capabilities(machine: Machine) -> list[Result]:
    results: list[Result] = []
    for cap, args in {
        raw.CAP_MANUAL: (0, 1, 2, 3, 4, 5, 1 << 40),
        raw.CAP_HYPERCALL: (0, 1 << 12, 1, 1 << 12 | 1, 1 << 44),
        225: (0, 1),
        9999: (0,),
        10: (0,),
    }.items():
        guest = Guest(machine)
        results += [guest.enable(cap, arg, flags) for arg in args for flags in (0, 1)]
    return results


def ring_capabilities(machine: Machine) -> list[Result]:
    sizes = [0, 1, 1024, 2048, 4095, 4096, 12288, 16384, 1 << 20, 1 << 21, 1 << 31, 1 << 32]
    results: list[Result] = []
    for cap in (raw.CAP_RING, raw.CAP_RING_ACQ_REL):
        for size in [*sizes, 1 << 32 | 16384]:
            vm = raw.new_vm(machine)
            wanted = raw.enable_cap(cap, size, flags=1)
            results.append(machine.ioctl(vm, raw.ENABLE_CAP, wanted))
    vm = raw.new_vm(machine)
    for cap, size in ((192, 16384), (192, 16384), (223, 16384), (192, 1 << 21), (192, 3)):
        wanted = raw.enable_cap(cap, size)
        results.append(machine.ioctl(vm, raw.ENABLE_CAP, wanted))
    guest = Guest(machine)
    results += [guest.enable(raw.CAP_RING, size) for size in (16384, 1 << 21, 3)]
    machine.close(guest.vcpu)
    results.append(guest.enable(raw.CAP_RING, 16384))
    return results


def reading_the_log(machine: Machine) -> list[Result]:
    guest = Guest(machine)
    guest.region(slot=1, flags=0, gfn=0x1000)
    written = guest.write([5, 70, 99])
    return [
        written,
        guest.exit_reason(),
        *(guest.get_log(slot) for slot in (1, 2, 32764, 65535, 1 << 16)),
        guest.get_log(),
        guest.get_log(),
        guest.write([5, 5, 64]),
        *(guest.get_log(address=address) for address in (*BAD, 0)),
        guest.get_log(),  # the bits were lost
    ]


def reading_across_a_bad_page(machine: Machine) -> list[Result]:
    guest = Guest(machine)
    guest.write([5, 70])
    area = Area(2)
    area.unmap(1, 1)
    result = guest.get_log(address=area.address + PAGE - 8)
    return [result, area.map[PAGE - 8 : PAGE].hex(), guest.get_log()]


def clearing_the_log(machine: Machine) -> list[Result]:
    guest = Guest(machine)
    guest.region(slot=1, flags=0, gfn=0x1000)
    pairs = [(64, 0), (36, 64), (100, 0), (0, 0), (0, 64), (0, 128), (64, 1), (63, 0), (65, 0)]
    pairs += [(101, 0), (0, 1), (37, 64), (0, 1 << 63), (1 << 31, 0), (0xFFFFFFFF, 0), (128, 0)]
    slots = [(64, 1, 32764), (64, 0, 1 << 16), (1, 1, 9), (1, 0, 9), (1, 0, 1), (64, 0, 0)]
    return [
        *(guest.clear_log(*pair) for pair in pairs),
        *(guest.clear_log(n, first, slot=slot) for n, first, slot in slots),
        *(guest.clear_log(n, 0, address) for address in BAD for n in (64, 0, 63)),
    ]


def what_a_clear_clears(machine: Machine) -> list[Result]:
    guest = Guest(machine, manual=1)
    results = [guest.write([0, 5, 63, 64, 70, 99]), guest.get_log(), guest.get_log()]
    masks = [(64, 0, 1 << 5), (36, 64, 1 << 6), (100, 0, (1 << 128) - (1 << 99)), (64, 0, 1)]
    for npages, first, mask in masks:
        results += [guest.clear_log(npages, first, mask.to_bytes(16, "little")), guest.get_log()]
    area = Area(2)
    area.map[PAGE - 8 : PAGE] = b"\xff" * 8
    area.unmap(1, 1)
    results += [guest.clear_log(100, 0, area.address + PAGE - 8), guest.get_log()]
    return [*results, guest.write([5]), guest.get_log()]


def changing_the_mode(machine: Machine) -> list[Result]:
    guest = Guest(machine)
    results = [guest.write([5, 70]), guest.enable(raw.CAP_MANUAL, 3)]
    results += [guest.get_log(), guest.get_log(), guest.get_log(address=0), guest.get_log()]
    results += [guest.enable(raw.CAP_MANUAL, 0), guest.get_log(), guest.get_log()]
    results += [guest.region(flags=0), guest.get_log(), guest.region(flags=LOG), guest.get_log()]
    return results


def initially_set(machine: Machine) -> list[Result]:
    guest = Guest(machine, manual=3)
    results = [guest.get_log(), guest.clear_log(100, 0), guest.get_log()]
    results += [guest.region(), guest.get_log(), guest.region(gfn=0x1000), guest.get_log()]
    results += [guest.region(gfn=0x1000, flags=0), guest.region(gfn=0x1000), guest.get_log()]
    return results


def moving_a_slot(machine: Machine) -> list[Result]:
    guest = Guest(machine)
    results = [guest.write([5, 70]), guest.region(gfn=0x1000), guest.get_log()]
    return [*results, guest.region(gfn=0), guest.write([6]), guest.get_log()]


def ring_instead_of_bitmap(machine: Machine) -> list[Result]:
    guest = Guest(machine, ring_bytes=16384)
    log = raw.dirty_log(0, 0)
    return [
        guest.get_log(),
        guest.get_log(slot=40000),
        guest.clear_log(1, 1),
        machine.ioctl(guest.vm, raw.GET_DIRTY_LOG),
        machine.ioctl(guest.vm, raw.GET_DIRTY_LOG, log),
        machine.ioctl(guest.vm, raw.RESET_RINGS, 5),
    ]


def harvesting_a_ring(machine: Machine) -> list[Result]:
    guest = Guest(machine, ring_bytes=16384)
    results: list[Result] = [guest.write([5, 7, 9]), str(guest.entries()[:4])]
    guest.harvest([1])
    results += [machine.ioctl(guest.vm, raw.RESET_RINGS), str(guest.entries()[:4])]
    guest.harvest([0], flags=3)
    results += [machine.ioctl(guest.vm, raw.RESET_RINGS), str(guest.entries()[:4])]
    results += [guest.write([5, 11]), str(guest.entries()[:6])]
    guest.harvest([2, 3, 4])
    results += [machine.ioctl(guest.vm, raw.RESET_RINGS), str(guest.entries()[:6])]
    return results


def rewriting_before_a_reset(machine: Machine) -> list[Result]:
    guest = Guest(machine, ring_bytes=16384)
    results = [guest.write([5, 7, 5, 5])]
    told = {offset for flags, _, offset in guest.entries() if flags}
    return [*results, str(sorted(told))]


def harvesting_more_than_there_is(machine: Machine) -> list[Result]:
    guest = Guest(machine, ring_bytes=16384)
    results = [guest.write([5, 7])]
    guest.harvest([0, 1, 2])
    results.append(machine.ioctl(guest.vm, raw.RESET_RINGS))
    for page in (9, 10, 11):  # the kernel's counters say nonsense now
        results += [guest.write([page]), guest.exit_reason()]
    return [*results, str(guest.entries()[:8])]


def ring_of_a_slot_that_had_a_bitmap(machine: Machine) -> list[Result]:
    vm = raw.new_vm(machine)
    area = Area(16)
    form = raw.region(0, LOG, 0, 16 * PAGE, area.address)
    bitmap = Buffer(bytes(8))
    log = raw.dirty_log(0, bitmap.address)
    return [
        machine.ioctl(vm, raw.SET_REGION, form),
        machine.ioctl(vm, raw.GET_DIRTY_LOG, log),
        machine.ioctl(vm, raw.ENABLE_CAP, raw.enable_cap(192, 16384)),
        machine.ioctl(vm, raw.GET_DIRTY_LOG, log),
    ]


def immediate_exit(machine: Machine) -> list[Result]:
    guest = Guest(machine)
    guest.run_area[8:12] = (77).to_bytes(4, "little")
    guest.run_area[1] = 1
    refused = [guest.write([5]), guest.exit_reason(), guest.area.map[5 * PAGE], guest.get_log()]
    guest.run_area[1] = 0
    return [
        *refused,
        machine.ioctl(guest.vcpu, raw.RUN),
        guest.exit_reason(),
        guest.area.map[5 * PAGE],
    ]


def writing_where_nothing_is(machine: Machine) -> list[Result]:
    guest = Guest(machine, npages=64)
    guest.region(slot=1, flags=LOG | READONLY, gfn=100, npages=8)
    results: list[Result] = []
    for page in (70, 101):
        results.append(guest.write([page, 5]))
        phys_addr, _, _, is_write = struct.unpack_from("<QQIB", guest.run_area, 32)
        results += [guest.exit_reason(), phys_addr, is_write]
        results += [machine.ioctl(guest.vcpu, raw.RUN), guest.exit_reason(), guest.get_log()]
    return [*results, guest.get_log(slot=1)]


def another_process(machine: Machine) -> list[Result]:
    guest = Guest(machine)
    kvm = machine.open()
    calls = [(kvm, raw.CHECK_EXTENSION), (guest.vm, raw.CHECK_EXTENSION), (guest.vm, 0xAEFF)]
    calls += [(guest.vcpu, raw.GET_REGS), (guest.vcpu, 0xAEFF), (guest.vm, raw.GET_DIRTY_LOG)]
    readable, writable = os.pipe()
    if os.fork() == 0:
        answers = ",".join(str(machine.ioctl(fd, request)) for fd, request in calls)
        os.write(writable, answers.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable) as pipe:
        answers = pipe.read()
    os.wait()
    return [answers]


def vm_closed_before_its_vcpu(machine: Machine) -> list[Result]:
    guest = Guest(machine)
    machine.close(guest.vm)
    registers = Buffer(bytes(0x90))
    return [machine.ioctl(guest.vcpu, raw.GET_REGS, registers)]


SCENARIOS: list[Callable[[Machine], list[Result]]] = [
    system_calls,
    vm_calls,
    vcpu_calls,
    fresh_registers,
    slot_forms,
    slot_changes,
    guest_memfds,
    capabilities,
    ring_capabilities,
    reading_the_log,
    reading_across_a_bad_page,
    clearing_the_log,
    what_a_clear_clears,
    changing_the_mode,
    initially_set,
    moving_a_slot,
    ring_instead_of_bitmap,
    harvesting_a_ring,
    rewriting_before_a_reset,
    harvesting_more_than_there_is,
    ring_of_a_slot_that_had_a_bitmap,
    immediate_exit,
    writing_where_nothing_is,
    another_process,
    vm_closed_before_its_vcpu,
]


@pytest.fixture(scope="module")
def host() -> Host:
    """A fake host with the real one's capabilities, and its CPU's."""
    need_kvm()
    return host_like_this_one()


@pytest.mark.kvm
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_answers_as_the_kernel_does(
    scenario: Callable[[Machine], list[Result]], host: Host
) -> None:
    with FakeMachine(host) as fake, RealMachine() as real:
        assert scenario(fake) == scenario(real)


@pytest.fixture(
    scope="module", params=sorted(FOLDER.glob("answers-*.json")), ids=lambda it: it.stem
)
def recorded(request: pytest.FixtureRequest) -> Recorded:
    return Recorded.read(request.param)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_answers_as_a_kernel_did(
    scenario: Callable[[Machine], list[Result]], recorded: Recorded
) -> None:
    with FakeMachine(recorded.host()) as fake:
        assert scenario(fake) == recorded.answers[scenario.__name__]
