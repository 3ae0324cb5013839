"""Random sequences of calls, good and bad, on the fake and on the kernel: always the same answers.

Compared after every step: results, errnos, every byte written into a buffer or beside it, exits,
dirty rings and what guests wrote; at the end of a sequence the dirty logs of all slots. What may
differ is listed in ``known_differences``. ``KVMENC_CONFORMANCE_EXAMPLES`` sets the number of
sequences (`make soak-conformance`).
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.fakekvm import known_differences as known
from tests.fakekvm import raw
from tests.fakekvm.lockstep import AREA_PAGES, Lockstep, Slot, Vcpu, Vm, host_like_this_one
from tests.fakekvm.raw import GUEST_MEMFD, LOG, PAGE, READONLY
from tests.support import need_kvm

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm import Host
    from tests.fakekvm.lockstep import Handle, Side

pytestmark = pytest.mark.kvm

F = TypeVar("F", bound="Callable[..., None]")

EXAMPLES = int(os.environ.get("KVMENC_CONFORMANCE_EXAMPLES", "60"))
STEPS = 40
# Making a failing sequence shorter takes minutes: not where a red run is wanted at once.
PHASES = [phase for phase in Phase if phase != Phase.shrink or os.environ.get("CI") != "true"]
MOST_SYSTEMS, MOST_VMS, MOST_VCPUS, MOST_MEMFDS = 3, 2, 3, 3
TOP = 1 << 47  # of user space

U64 = st.integers(0, (1 << 64) - 1)
WHICH = st.integers(0, 5)  # taken modulo how many there are
BAD_ADDRESSES = st.sampled_from((0, 8, 1 << 40, 1 << 63, (1 << 64) - 8, TOP - PAGE))
WRITABLE_GFNS = st.integers(0, 0xEF)
NUMBERS = st.sampled_from((None, 0, 1, 70))
SLOTS = st.sampled_from((0, 1, 2, 3))
ODD_SLOTS = st.sampled_from((0, 1, 5, 32763, 32764, 32767, 65535, 1 << 16, 3 << 16, 1 << 31))
CHANGES = st.sampled_from(("same", "same", "move", "flags", "kind", "delete"))
RING_BYTES = st.sampled_from((0, 1, 4095, 4096, 8192, 12288, 16384, 1 << 21, 1 << 31, 1 << 32))


def _packed(fmt: str, *values: st.SearchStrategy[int]) -> st.SearchStrategy[bytes]:
    return st.tuples(*values).map(lambda drawn: struct.pack(fmt, *drawn))


CAPABILITIES = st.one_of(
    st.tuples(st.just(raw.CAP_MANUAL), st.sampled_from((0, 1, 2, 3, 4, 1 << 40))),
    st.tuples(st.sampled_from((raw.CAP_RING, raw.CAP_RING_ACQ_REL)), RING_BYTES),
    st.tuples(st.just(raw.CAP_HYPERCALL), st.sampled_from((0, 1, 1 << 12, 1 << 44))),
    st.tuples(st.sampled_from(known.NEVER_ENABLED_CAPABILITIES), st.sampled_from((0, 1, 1 << 40))),
)
VM_CALLS: st.SearchStrategy[tuple[int, int | bytes]] = st.one_of(
    st.tuples(
        st.just(raw.SET_TSS_ADDR), st.sampled_from((0, 1, 0xFFFBC000, 0xFFFFD000, 0xFFFFD001))
    ),
    st.tuples(st.just(raw.SET_IDENTITY_MAP_ADDR), _packed("<Q", st.sampled_from((0, 0xFFFBC000)))),
    st.tuples(
        st.just(raw.SET_ATTRIBUTES),
        _packed("<4Q", *[st.sampled_from((0, 8, PAGE, 1 << 63))] * 4),
    ),
    st.tuples(
        st.sampled_from((raw.MEMORY_ENCRYPT_OP, raw.REG_REGION, raw.UNREG_REGION)),
        st.binary(min_size=24, max_size=24),
    ),
)

STRUCT_REQUESTS = {
    raw.GET_DIRTY_LOG: 16,
    raw.SET_REGION: 32,
    raw.SET_REGION2: 160,
    raw.SET_IDENTITY_MAP_ADDR: 8,
    raw.ENABLE_CAP: 104,
    raw.CLEAR_DIRTY_LOG: 24,
    raw.SET_ATTRIBUTES: 32,
    raw.CREATE_GUEST_MEMFD: 64,
    raw.MEMORY_ENCRYPT_OP: 24,
    raw.REG_REGION: 16,
    raw.UNREG_REGION: 16,
    raw.GET_REGS: 0x90,
    raw.SET_REGS: 0x90,
    raw.GET_SREGS: 0x138,
    raw.SET_SREGS: 0x138,
    raw.SET_SIGNAL_MASK: 4,
    raw.GET_SUPPORTED_CPUID: 8,
}
NUMBER_REQUESTS = (
    raw.GET_API_VERSION,
    raw.CREATE_VM,
    raw.CHECK_EXTENSION,
    raw.GET_VCPU_MMAP_SIZE,
    raw.CREATE_VCPU,
    raw.SET_TSS_ADDR,
    raw.RUN,
    raw.RESET_RINGS,
)
OUT_OF_TREE = (0x4010AEBD, 0x4018AEC2, 0x4018AEC3, 0x4018AEC5, 0x4018AEC6, 0x4018AEC8, 0x4018AEC9)
UNKNOWN = (*OUT_OF_TREE, 0xAEC4, 0xAEFF, 0x5401, 0, 0xFFFFFFFF, 0xC010AE42, 0x4018AE46)


#: Calls that change little, by name, with the strategies of their arguments: one rule for all.
ODD_CALLS: dict[str, st.SearchStrategy[dict[str, Any]]] = {}


def odd(**arguments: st.SearchStrategy[Any]) -> Callable[[F], F]:
    """A method of the machine that is such a call."""

    def register(method: F) -> F:
        ODD_CALLS[method.__name__] = st.fixed_dictionaries(arguments)
        return method

    return register


def _has_rings(machine: Conformance) -> bool:
    return any(vcpu.rings for vcpu in machine.vcpus)


class Conformance(RuleBasedStateMachine):
    host: ClassVar[Host]
    seen: ClassVar[Counter[tuple[str, str, str]]] = Counter()
    sequences: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.both = Lockstep(self.host)
        self.systems = [self.both.open()]
        self.vms: list[Vm] = []
        self.vcpus: list[Vcpu] = []  # also those of VMs that are closed
        self.value = 0

    def teardown(self) -> None:
        try:
            for vm in self.vms:
                for slot in sorted(vm.slots):
                    self._get_log(vm, slot)
        finally:
            for vcpu in self.vcpus:
                vcpu.unmap()
            self.both.__exit__()
            type(self).seen += self.both.seen
            type(self).sequences += 1

    @initialize(ring=st.sampled_from((0, 0, 0, 4096, 16384)), manual=st.sampled_from((0, 0, 1, 3)))
    def begin(self, ring: int, manual: int) -> None:
        """A VM with a vCPU and a logged slot: chance alone would seldom come to its log."""
        vm = self._new_vm()
        self._enable(vm, raw.CAP_MANUAL, manual, 0)
        if ring:
            self._enable(vm, raw.CAP_RING, ring, 0)
        self._put(vm, 0, LOG, 0, 100, 0)
        self._new_vcpu(vm, 0)

    # -- which one ------------------------------------------------------------------------------

    def _vm(self, which: int) -> Vm:
        return self.vms[which % len(self.vms)]

    def _vcpu(self, which: int) -> Vcpu:
        return self.vcpus[which % len(self.vcpus)]

    def _slot(self, vm: Vm, number: int) -> int:
        """Mostly one that is there."""
        slots = sorted(vm.slots)
        return slots[number % len(slots)] if slots and number < 4 else number

    def _memfds(self) -> list[Handle]:
        return [memfd for vm in self.vms for memfd in vm.memfds]

    def _files(self) -> list[Handle]:
        return [
            *self.systems,
            *(vm.handle for vm in self.vms),
            *(vcpu.handle for vcpu in self.vcpus),
            *self._memfds(),
        ]

    def _file(self, which: int) -> Handle:
        files = self._files()
        return files[which % len(files)]

    # -- /dev/kvm ---------------------------------------------------------------------------------

    @odd()
    def open_system(self) -> None:
        if len(self.systems) < MOST_SYSTEMS:
            self.systems.append(self.both.open())

    def _new_vm(self) -> Vm:
        vm = self.both.new_vm(self.systems[0])
        self.vms.append(vm)
        return vm

    @precondition(lambda self: self.systems and len(self.vms) < MOST_VMS)
    @rule()
    def create_vm(self) -> None:
        self._new_vm()

    @odd(vm_type=st.integers(1, 70) | U64.filter(bool))
    def create_odd_vm(self, vm_type: int) -> None:
        assert self.both.create(self.systems[0], raw.CREATE_VM, vm_type, "vm") is None

    @odd(which=WHICH, capability=st.integers(0, 299) | U64)
    def check_extension(self, which: int, capability: int) -> None:
        files = [*self.systems, *(vm.handle for vm in self.vms)]
        self.both.ioctl(files[which % len(files)], raw.CHECK_EXTENSION, capability)

    # -- VMs --------------------------------------------------------------------------------------

    def _enable(self, vm: Vm, capability: int, argument: int, flags: int) -> None:
        wanted = raw.enable_cap(capability, argument, flags)
        result = self.both.ioctl(vm.handle, raw.ENABLE_CAP, lambda side: side.put(wanted))
        if result == 0 and capability in (raw.CAP_RING, raw.CAP_RING_ACQ_REL):
            vm.ring_bytes = argument & 0xFFFFFFFF

    @precondition(lambda self: self.vms)
    @rule(which=WHICH, wanted=CAPABILITIES, flags=st.sampled_from((0, 0, 1, 1 << 31)))
    def enable(self, which: int, wanted: tuple[int, int], flags: int) -> None:
        self._enable(self._vm(which), *wanted, flags)

    @precondition(lambda self: self.vms)
    @rule(which=WHICH, number=st.sampled_from((0, 1, 2, 4095, 4096, 1 << 31, 1 << 32)))
    def create_vcpu(self, which: int, number: int) -> None:
        vm = self._vm(which)
        if len(vm.vcpus) < MOST_VCPUS:
            self._new_vcpu(vm, number)

    def _new_vcpu(self, vm: Vm, number: int) -> None:
        handle = self.both.create(vm.handle, raw.CREATE_VCPU, number, "vcpu")
        if handle is not None:
            vm.vcpus.append(Vcpu(handle, vm, number))
            self.vcpus.append(vm.vcpus[-1])

    @odd(which=WHICH, call=VM_CALLS)
    def call_a_vm(self, which: int, call: tuple[int, int | bytes]) -> None:
        if not self.vms:
            return
        request, argument = call
        handle = self._vm(which).handle
        where = _content(argument) if isinstance(argument, bytes) else argument
        self.both.ioctl(handle, request, where)

    # -- memslots ---------------------------------------------------------------------------------

    def _put(self, vm: Vm, slot: int, flags: int, gfn: int, npages: int, page: int) -> None:
        def argument(side: Side) -> int:
            address = vm.areas[side.index].address + page * PAGE
            return side.put(raw.region(slot, flags, gfn * PAGE, npages * PAGE, address))

        result = self.both.ioctl(vm.handle, raw.SET_REGION, argument)
        self._slot_changed(vm, result, slot, Slot(gfn, npages, flags, has_memory=True))

    def _slot_changed(self, vm: Vm, result: int | str, number: int, slot: Slot) -> None:
        if result != 0:
            return
        if slot.npages:
            vm.slots[number] = slot
        else:
            del vm.slots[number]

    @precondition(lambda self: self.vms)
    @rule(
        which=WHICH,
        slot=SLOTS,
        flags=st.sampled_from((0, LOG, LOG, LOG, READONLY, LOG | READONLY)),
        gfn=st.sampled_from((0, 0, 1, 64, 70, 100, 150, 0x400, 1 << 39, 1 << 40)),
        npages=st.sampled_from((1, 8, 63, 64, 65, 100, 100)),
        page=st.sampled_from((0, 0, 0, 3)),
    )
    def put_slot(self, which: int, slot: int, flags: int, gfn: int, npages: int, page: int) -> None:
        self._put(self._vm(which), slot, flags, gfn, npages, page)

    @precondition(lambda self: self.vms)
    @rule(which=WHICH, slot=SLOTS, change=CHANGES)
    def change_slot(self, which: int, slot: int, change: str) -> None:
        """Of a slot that is there; its kind, which is whether it is ROM, cannot change."""
        vm = self._vm(which)
        slot = self._slot(vm, slot)
        old = vm.slots.get(slot)
        if old is None or (old.flags & GUEST_MEMFD and change != "delete"):
            return
        flags = old.flags ^ {"flags": LOG, "kind": READONLY}.get(change, 0)
        base = (old.base + 100) % 200 if change == "move" else old.base
        self._put(vm, slot, flags, base, 0 if change == "delete" else old.npages, 0)

    @precondition(lambda self: self.vms)
    @rule(
        which=WHICH,
        second=st.booleans(),
        slot=SLOTS | ODD_SLOTS,
        flags=st.sampled_from((0, LOG, READONLY, 3, 4, 8, 1 << 16, 1 << 31)),
        gpa=st.sampled_from((0, 1, 64 * PAGE, 1 << 52, (1 << 52) - PAGE, (1 << 64) - PAGE)),
        size=st.sampled_from((0, 1, 100, PAGE, 64 * PAGE, 1 << 43, 1 << 62, (1 << 64) - PAGE)),
        address=st.sampled_from((0, 1, PAGE, TOP - 2 * PAGE, TOP - PAGE, TOP, 1 << 63)),
    )
    def put_odd_slot(
        self, which: int, second: bool, slot: int, flags: int, gpa: int, size: int, address: int
    ) -> None:
        vm = self._vm(which)
        form = (slot, flags, gpa, size, address)
        request, content = raw.SET_REGION, raw.region(*form)
        if second:
            request, content = raw.SET_REGION2, raw.region2(*form, memfd=9999)
        result = self.both.ioctl(vm.handle, request, lambda side: side.put(content))
        there = Slot(gpa // PAGE, size // PAGE, flags, has_memory=False)
        self._slot_changed(vm, result, slot, there)

    @precondition(lambda self: self.vms)
    @rule(
        which=WHICH,
        size=st.sampled_from((0, 100, PAGE, 16 * PAGE, 64 * PAGE, 1 << 63, (1 << 64) - PAGE)),
        flags=st.sampled_from((0, 0, 1, 2, 3, 4, 1 << 8, 1 << 63)),
    )
    def create_guest_memfd(self, which: int, size: int, flags: int) -> None:
        vm = self._vm(which)
        if len(vm.memfds) < MOST_MEMFDS:
            wanted = raw.guest_memfd(size, flags)
            memfd = self.both.create(
                vm.handle, raw.CREATE_GUEST_MEMFD, lambda side: side.put(wanted), "guest_memfd"
            )
            vm.memfds += [memfd] if memfd else []

    @precondition(lambda self: self.vms)
    @rule(
        which=WHICH,
        behind=WHICH,
        slot=SLOTS,
        flags=st.sampled_from((4, 4, 4, 0, 5, 6)),
        gfn=st.sampled_from((0, 64, 150, 0x400)),
        npages=st.sampled_from((0, 1, 8, 16, 17)),
        offset=st.sampled_from((0, 0, 1, PAGE, 8 * PAGE, 64 * PAGE, (1 << 64) - PAGE)),
    )
    def put_private_slot(
        self, which: int, behind: int, slot: int, flags: int, gfn: int, npages: int, offset: int
    ) -> None:
        """A guest_memfd behind it, perhaps of another VM; or a file that is none."""
        vm = self._vm(which)
        files = [*self._memfds(), *self._memfds(), *self._files()]
        memfd = files[behind % len(files)]

        def argument(side: Side) -> int:
            address, fd = vm.areas[side.index].address, memfd.fds[side.index]
            form = (slot, flags, gfn * PAGE, npages * PAGE, address, offset, fd)
            return side.put(raw.region2(*form))

        result = self.both.ioctl(vm.handle, raw.SET_REGION2, argument)
        self._slot_changed(vm, result, slot, Slot(gfn, npages, flags, has_memory=True))

    # -- dirty logs -------------------------------------------------------------------------------

    def _get_log(self, vm: Vm, slot: int, where: int | Callable[[Side], int] | None = None) -> None:
        npages = vm.slots[slot].npages if slot in vm.slots else AREA_PAGES
        content = b"\xee" * ((npages + 63) // 64 * 8)

        def argument(side: Side) -> int:
            out = where if isinstance(where, int) else (where or _content(content))(side)
            return side.put(raw.dirty_log(slot, out))

        self.both.ioctl(vm.handle, raw.GET_DIRTY_LOG, argument)

    @precondition(lambda self: self.vms)
    @rule(
        which=WHICH,
        slot=SLOTS | SLOTS | ODD_SLOTS,
        address=st.none() | st.none() | BAD_ADDRESSES,
        edge=st.sampled_from((0, 0, 0, 1, 4, 8, 12, 16)),
    )
    def get_log(self, which: int, slot: int, address: int | None, edge: int) -> None:
        """Into a buffer; or to a bad address, or where only ``edge`` bytes can be written."""
        vm = self._vm(which)
        slot = self._slot(vm, slot)
        if edge:
            self._get_log(vm, slot, lambda side: side.before_the_edge(edge))
        else:
            self._get_log(vm, slot, address)

    @precondition(lambda self: self.vms)
    @rule(
        which=WHICH,
        bits=st.binary(min_size=32, max_size=32) | st.just(b"\xff" * 32),
        fails=st.booleans(),
    )
    def sync(self, which: int, bits: bytes, fails: bool) -> None:
        """What a migration does in each round, with all slots; or one that fails first."""
        vm = self._vm(which)
        for slot, there in sorted(vm.slots.items()):
            self._get_log(vm, slot, 0 if fails else None)
            self._get_log(vm, slot)
            self._clear_log(vm, slot, (there.npages, 0), _content(bits))

    def _clear_log(
        self, vm: Vm, slot: int, pages: tuple[int, int], where: Callable[[Side], int]
    ) -> None:
        self.both.ioctl(
            vm.handle,
            raw.CLEAR_DIRTY_LOG,
            lambda side: side.put(struct.pack("<IIQQ", slot, *pages, where(side))),
        )

    @precondition(lambda self: self.vms)
    @rule(
        which=WHICH,
        slot=SLOTS,
        part=st.sampled_from(((0, 0), (0, 64), (64, 0), (0, 1), (0, -1), (128, 0))),
        bits=st.binary(min_size=32, max_size=32) | st.just(b"\xff" * 32),
    )
    def clear_log(self, which: int, slot: int, part: tuple[int, int], bits: bytes) -> None:
        """From ``part[0]`` on: ``part[1]`` pages; 0 or less: up to there from the slot's end."""
        vm = self._vm(which)
        slot = self._slot(vm, slot)
        first, count = part
        npages = vm.slots[slot].npages if slot in vm.slots else 64
        count = count if count > 0 else max(npages - first + count, 0)
        self._clear_log(vm, slot, (count, first), lambda side: side.put(bits))

    @precondition(lambda self: self.vms)
    @rule(
        which=WHICH,
        slot=SLOTS | ODD_SLOTS,
        count=st.sampled_from((0, 1, 63, 64, 65, 100, 101, 128, 1 << 31, (1 << 32) - 1)),
        first=st.sampled_from((0, 0, 1, 64, 128, 1 << 32, 1 << 63, (1 << 64) - 64)),
        address=st.none() | BAD_ADDRESSES,
        edge=st.sampled_from((0, 0, 1, 8, 12, 16)),
    )
    def clear_odd_log(
        self, which: int, slot: int, count: int, first: int, address: int | None, edge: int
    ) -> None:
        def where(side: Side) -> int:
            if address is not None:
                return address
            return side.before_the_edge(edge) if edge else side.put(b"\xff" * 64)

        vm = self._vm(which)
        self._clear_log(vm, self._slot(vm, slot), (count, first), where)

    # -- rings ------------------------------------------------------------------------------------

    def _vcpu_with_ring(self, which: int) -> Vcpu:
        vcpus = [vcpu for vcpu in self.vcpus if vcpu.rings]
        return vcpus[which % len(vcpus)]

    @precondition(_has_rings)
    @rule(
        which=WHICH,
        skip=st.sampled_from((0, 0, 1)),
        count=st.integers(1, 20),
        reset=st.booleans(),
    )
    def harvest(self, which: int, skip: int, count: int, reset: bool) -> None:
        """Take entries that are there; where one is skipped, a reset is to stop at it."""
        vcpu = self._vcpu_with_ring(which)
        self.both.harvest(vcpu, vcpu.waiting()[skip : skip + count], 2 | count & 1)
        if reset and not vcpu.vm.is_closed:
            self.both.reset_rings(vcpu.vm)

    @precondition(_has_rings)
    @rule(
        which=WHICH,
        slot=SLOTS | st.integers(0, (1 << 32) - 1),
        offset=st.sampled_from((0, 99, 100, 1 << 40, (1 << 64) - 1)),
        more=st.sampled_from((0, 0, 0, 1, 3)),
    )
    def spoil(self, which: int, slot: int, offset: int, more: int) -> None:
        """Write other pages into a ring, or take entries that are not there: it must be borne."""
        vcpu = self._vcpu_with_ring(which)
        if vcpu.waiting():
            self.both.spoil(vcpu, vcpu.waiting()[0], slot, offset)
        if more:
            vcpu.is_confused = True
            self.both.harvest(vcpu, vcpu.next_entries(more), 2)

    @precondition(lambda self: self.vms)
    @rule(which=WHICH, argument=st.sampled_from((0, 0, 0, 5)))
    def reset_rings(self, which: int, argument: int) -> None:
        self.both.reset_rings(self._vm(which), argument)

    # -- vCPUs ------------------------------------------------------------------------------------

    @precondition(lambda self: self.vcpus)
    @rule(
        which=WHICH,
        pages=st.lists(st.integers(0, 99) | WRITABLE_GFNS, min_size=1, max_size=12),
        interrupts=st.sampled_from((0, 0, 0, 1, 2, 6)),
    )
    def write(self, which: int, pages: list[int], interrupts: int) -> None:
        vcpu = self._vcpu(which)
        allowed = [page for page in pages if vcpu.vm.may_write(page)]
        self.value += 1
        if not vcpu.rings:
            self.both.run(vcpu, allowed, self.value, interrupts)
        elif vcpu.is_confused:
            for page in allowed[:1]:
                self.both.run_confused(vcpu, page, self.value)
        elif vcpu.room(self.host.ring_reserved_entries) > len(allowed):
            self.both.run(vcpu, allowed, self.value, interrupts)
        else:
            self.both.run_and_drain(vcpu, allowed, self.value)

    @precondition(lambda self: self.vcpus)
    @rule(
        which=WHICH,
        first=st.integers(0, 99),
        change=CHANGES,
        fails=st.booleans(),
        count=st.integers(1, 6),
    )
    def migrate(self, which: int, first: int, change: str, fails: bool, count: int) -> None:
        """Writes, a change of a slot, and a sync: together, so that there is much of it."""
        vcpu = self._vcpu(which)
        self.write(which, [first, first // 2, first], 0)
        if vcpu.vm.is_closed:
            return
        number = self.vms.index(vcpu.vm)
        self.change_slot(number, first % 4, change)
        if vcpu.rings:
            self.both.harvest(vcpu, vcpu.waiting()[:count], 2)
            self.both.reset_rings(vcpu.vm)
        else:
            self.sync(number, b"\x0f\xff" * 16, fails)

    @precondition(_has_rings)
    @rule(which=WHICH, first=st.integers(0, 100), count=st.integers(100, 240))
    def fill_a_ring(self, which: int, first: int, count: int) -> None:
        vcpu = self._vcpu_with_ring(which)
        pages = [(first + n) % 100 for n in range(count)]
        if not vcpu.is_confused:
            allowed = [page for page in pages if vcpu.vm.may_write(page)]
            self.both.run_and_drain(vcpu, allowed, self.value)

    @precondition(lambda self: self.vcpus)
    @rule(which=WHICH, values=st.lists(U64, min_size=18, max_size=18))
    def registers(self, which: int, values: list[int]) -> None:
        handle = self._vcpu(which).handle
        values[17] = known.registers_set(values[17])
        content = struct.pack("<18Q", *values)
        self.both.ioctl(handle, raw.SET_REGS, lambda side: side.put(content))
        self.both.ioctl(handle, raw.GET_REGS, lambda side: side.put(b"\xee" * 0x90))
        if self._vcpu(which).is_fresh:
            self.both.ioctl(handle, raw.GET_SREGS, lambda side: side.put(b"\xee" * 0x138))

    @odd(which=WHICH, size=st.sampled_from((0, 4, 8, 16)), mask=st.sampled_from((0, 1 << 9)))
    def set_signal_mask(self, which: int, size: int, mask: int) -> None:
        if not self.vcpus:
            return
        content = struct.pack("<IQ", size, mask)
        handle = self._vcpu(which).handle
        self.both.ioctl(handle, raw.SET_SIGNAL_MASK, lambda side: side.put(content))

    # -- any file -------------------------------------------------------------------------------

    @odd(
        which=WHICH,
        request=st.sampled_from(tuple(STRUCT_REQUESTS)),
        address=st.none() | BAD_ADDRESSES,
        short=st.integers(1, 4),
    )
    def call_with_no_struct(
        self, which: int, request: int, address: int | None, short: int
    ) -> None:
        """At a bad address, or with its last bytes behind the edge of memory."""
        size = max(STRUCT_REQUESTS[request] - 4 * short, 0)
        handle = self._file(which)
        where = address if address is not None else lambda side: side.before_the_edge(size)
        if not known.registers_are_left_out(request, self._is_fresh(handle)):
            self._call(handle, request, where)

    def _is_fresh(self, handle: Handle) -> bool:
        return all(vcpu.is_fresh for vcpu in self.vcpus if vcpu.handle is handle)

    @odd(which=WHICH, request=st.sampled_from(UNKNOWN + NUMBER_REQUESTS), argument=NUMBERS)
    def call_the_wrong_file(self, which: int, request: int, argument: int | None) -> None:
        """Mostly; None: a good address."""
        handle = self._file(which)
        if (handle.kind, request) not in known.RETURNING_DESCRIPTORS:
            self._call(handle, request, _content(bytes(64)) if argument is None else argument)

    def _call(self, handle: Handle, request: int, argument: int | Callable[[Side], int]) -> None:
        if not known.call_is_left_out(handle.kind, request, argument):
            self.both.ioctl(handle, request, argument)

    @odd(
        which=WHICH,
        npages=st.sampled_from((0, 1, 3, 4, 64, 68)),
        protection=st.sampled_from((0, 1, 3, 7)),
        flags=st.sampled_from((1, 1, 2, 0)),
        offset=st.sampled_from((0, 0, 1, PAGE, 64 * PAGE, 1 << 40)),
    )
    def map(self, which: int, npages: int, protection: int, flags: int, offset: int) -> None:
        handle = self._file(which)
        if not known.mapping_is_left_out(handle.kind, protection, flags):
            self.both.map(handle, npages * PAGE, protection, flags, offset)

    @odd(which=WHICH)
    def ask_in_another_process(self, which: int) -> None:
        requests = (raw.CHECK_EXTENSION, raw.GET_DIRTY_LOG, raw.GET_REGS, raw.RUN | 1, 0xAEFF)
        self.both.in_another_process(self._file(which), requests)

    @rule(name=st.sampled_from(sorted(ODD_CALLS)), data=st.data())
    def call_oddly(self, name: str, data: st.DataObject) -> None:
        arguments = data.draw(ODD_CALLS[name])
        getattr(self, name)(**arguments)

    @rule(which=WHICH, chance=st.integers(0, 2), request=st.sampled_from(NUMBER_REQUESTS))
    def close(self, which: int, chance: int, request: int) -> None:
        """Any file, but seldom: a VM before its vCPUs, a guest_memfd that is bound."""
        handle = self._file(which)
        if chance or handle is self.systems[0]:
            return
        self.both.close(handle, request)
        self.systems = [it for it in self.systems if it is not handle]
        for vm in self.vms:
            vm.is_closed = vm.handle is handle
        self.vms = [vm for vm in self.vms if not vm.is_closed]
        for vcpu in [it for it in self.vcpus if it.handle is handle]:
            vcpu.unmap()
            self.vcpus.remove(vcpu)
        for vm in self.vms:
            vm.memfds = [it for it in vm.memfds if it is not handle]

    @invariant()
    def rings_are_the_same(self) -> None:
        for vcpu in self.vcpus:
            self.both.compare_rings(vcpu)


def _content(content: bytes) -> Callable[[Side], int]:
    return lambda side: side.put(content)


@pytest.mark.timeout(7200)
def test_any_sequence_of_calls_is_answered_as_by_the_kernel() -> None:
    need_kvm()
    Conformance.host = host_like_this_one()
    Conformance.seen.clear()
    Conformance.sequences = 0
    checks = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
        phases=PHASES,
        report_multiple_bugs=False,
    )
    machine = cast("type[RuleBasedStateMachine]", Conformance)
    run_state_machine_as_test(machine, settings=checks)
    print(f"{Conformance.sequences} sequences, {Conformance.seen.total()} calls compared")
