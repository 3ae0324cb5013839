"""Scenarios at work: who gets which script, on which pages, and that all of it is repeatable."""

from __future__ import annotations

import mmap
import struct
import threading
import time
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import guests, scenario
from fakekvm.guests import Flip, Halt, PortOut, Rest, WritePages
from fakekvm.scenario import SCHEMA, Scenario
from tests.fakekvm import raw
from tests.fakekvm.raw import LOG, PAGE, Buffer, FakeMachine

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from fakekvm.guests import Step

IO, HLT = 2, 5
MEMORY = {0: range(16), 1: range(100, 148)}


def parsed(guests_text: str, seed: int = 0) -> Scenario:
    return scenario.parse(f'schema = "{SCHEMA}"\nseed = {seed}\n{guests_text}')


def steps_of(
    read: Scenario,
    vm: int = 0,
    vcpu: int = 0,
    count: int = 30,
    memory: Mapping[int, range] = MEMORY,
) -> list[Step]:
    return list(islice(read.script(vm, vcpu, lambda: memory), count))


def as_text(steps: Iterable[Step]) -> list[str]:
    return [
        f"{list(step.gfns)} {step.value}" if isinstance(step, WritePages) else str(step)
        for step in steps
    ]


def written(steps: Iterable[Step]) -> list[int]:
    return [int(gfn) for s in steps if isinstance(s, WritePages) for gfn in s.gfns]


# --- scripts


PORTS = """
[[guest]]
vms = [1]
[[guest.phase]]
does = "port-out"
port = 1
[[guest]]
vcpus = [2, 3]
[[guest.phase]]
does = "port-out"
port = 2
[[guest.phase]]
does = "halt"
[[guest]]
vms = [0]
vcpus = [0, 2]
[[guest.phase]]
does = "port-out"
port = 3
"""


@pytest.mark.parametrize(
    ("vm", "vcpu", "steps"),
    [
        (1, 0, [PortOut(1, 0)]),
        (1, 2, [PortOut(1, 0)]),
        (0, 2, [PortOut(2, 0), Halt()]),
        (0, 0, [PortOut(3, 0)]),
        (0, 1, []),
        (2, 0, []),
    ],
)
def test_a_vcpu_belongs_to_the_first_guest_that_has_it(
    vm: int, vcpu: int, steps: list[Step]
) -> None:
    assert steps_of(parsed(PORTS), vm, vcpu) == steps


ONE = """
[[guest]]
vcpus = [0, 1, 2, 3]
at_end = "{end}"
[[guest.phase]]
gfns = "{gfns}"
{phase}
"""


def one(phase: str, gfns: str = "all", end: str = "halt", seed: int = 0) -> Scenario:
    return parsed(ONE.format(phase=phase, gfns=gfns, end=end), seed)


@pytest.mark.parametrize(
    "does", ["random", "zipf", "hot-and-cold", "bursts", "working-sets", "flip-then-write"]
)
def test_steps_follow_from_seed_vm_and_vcpu(does: str) -> None:
    phase = f'does = "{does}"\nsteps = 10'
    first = as_text(steps_of(one(phase, seed=1)))
    assert len(first) == 10
    assert first == as_text(steps_of(one(phase, seed=1)))
    others = [
        as_text(steps_of(one(phase, seed=2))),
        as_text(steps_of(one(phase, seed=1), vcpu=1)),
        as_text(steps_of(one(phase, seed=1), vm=1)),
    ]
    assert len({tuple(steps) for steps in [first, *others]}) == 4


def test_each_time_round_a_repeated_guest_does_something_new() -> None:
    steps = as_text(steps_of(one('does = "random"\nsteps = 2', end="repeat"), count=8))
    assert len(steps) == 8
    assert len({step.rsplit(" ", 1)[0] for step in steps}) == 8
    assert [step.rsplit(" ", 1)[1] for step in steps] == ["1", "2"] * 4, "phases begin anew"


@pytest.mark.parametrize("does", ["zipf", "write", "hot-and-cold", "swiotlb-churn", "boot"])
@pytest.mark.parametrize("end", ["halt", "repeat"])
def test_without_memory_a_guest_comes_to_its_end(does: str, end: str) -> None:
    assert steps_of(one(f'does = "{does}"', end=end), memory={}) == []


@pytest.mark.parametrize(
    "does",
    [
        *("sequential", "random", "zipf", "hot-and-cold", "bursts", "working-sets"),
        *("swiotlb-churn", "flip-then-write", "write-then-flip", "write"),
    ],
)
@pytest.mark.parametrize(
    ("gfns", "expected"),
    [("all", {*range(16), *range(100, 148)}), ("12.5%-50%", {*range(8, 16), *range(100, 116)})],
)
def test_a_phase_touches_all_of_its_pages_and_no_others(
    does: str, gfns: str, expected: set[int]
) -> None:
    phase = f'does = "{does}"' + ("\nset_writes = 512" if does == "working-sets" else "")
    steps = steps_of(one(phase, gfns), count=1500 if "flip" in does or "churn" in does else 100)
    assert set(written(steps)) == expected
    flipped = {gfn for s in steps if isinstance(s, Flip) for gfn in range(s.gfn, s.gfn + s.npages)}
    assert flipped <= expected


def test_hot_pages_are_a_part_of_all() -> None:
    steps = steps_of(one('does = "hot-and-cold"\nhot = 0.25\nhot_share = 0.75'), count=40)
    hot = [gfn for gfn in written(steps) if gfn < 16]
    assert len(hot) == 0.75 * len(written(steps))
    all_hot = steps_of(one('does = "hot-and-cold"\nhot = 1'), count=5)
    assert len(written(all_hot)) == 5 * 512


def test_split_pages_are_each_one_vcpu_s() -> None:
    read = one('does = "write"\nsplit = true', gfns="25%-100%")
    shares = [written(steps_of(read, vcpu=vcpu)) for vcpu in range(4)]
    assert [gfn for share in shares for gfn in share] == list(range(100, 148))
    assert {len(share) for share in shares} == {12}


def test_a_rate_makes_rests() -> None:
    steps = steps_of(one('does = "random"\nsteps = 3\nchunk_pages = 100\npages_a_second = 1000'))
    assert [type(step) for step in steps] == [WritePages, Rest] * 3
    assert {step.seconds for step in steps if isinstance(step, Rest)} == {0.1}


def test_single_steps_say_what_they_are_told() -> None:
    read = parsed("""
[[guest]]
[[guest.phase]]
does = "write"
gfns = ["0x10-0x1f", 5]
value = 9
[[guest.phase]]
does = "announce"
gfns = "all"
private = false
[[guest.phase]]
does = "port-out"
port = 0x3f8
value = 65
[[guest.phase]]
does = "rest"
rest = "5 ms"
""")
    first, second, *rest = steps_of(read)
    assert as_text([first, second]) == [f"{list(range(16, 32))} 9", "[5] 9"]
    assert rest == [
        Flip(0, 16, private=False),
        Flip(100, 48, private=False),
        PortOut(0x3F8, 65),
        Rest(0.005),
    ]


def test_a_boot_is_the_one_of_the_guests_module() -> None:
    memory = {0: range(1 << 16)}
    phase = 'does = "boot"\ncpus = 2\nfirmware_conversions = 10'
    steps = steps_of(one(phase), count=10_000, memory=memory)
    plain = list(guests.boot_flips(list(memory.values()), np.random.default_rng(0), 2, 10))
    assert len(steps) == pytest.approx(len(plain), abs=60)
    assert sum(isinstance(s, Flip) for s in steps) == sum(isinstance(s, Flip) for s in plain)


# --- kernels


class Machine(FakeMachine):
    """A scenario's kernel."""

    def __init__(self, read: Scenario) -> None:
        super().__init__(read.host)
        self.kernel = read.kernel()


class Vm:
    """A VM with vCPUs, which gets its memory afterwards, as QEMU's do not; both are possible."""

    def __init__(self, machine: Machine, vcpus: int = 1, npages: int = 256) -> None:
        self.machine = machine
        self.fd = raw.new_vm(machine)
        self.vcpus = [raw.number(machine.ioctl(self.fd, raw.CREATE_VCPU, n)) for n in range(vcpus)]
        self.pages = [mmap.mmap(vcpu, 3 * PAGE) for vcpu in self.vcpus]
        self.npages = npages
        self.area = raw.Area(npages)
        form = raw.region(0, LOG, 0, npages * PAGE, self.area.address)
        assert machine.ioctl(self.fd, raw.SET_REGION, form) == 0

    def run(self, vcpu: int = 0) -> raw.Result:
        """The exit's reason, or an errno."""
        result = self.machine.ioctl(self.vcpus[vcpu], raw.RUN)
        return result or int.from_bytes(self.pages[vcpu][8:12], "little")

    def dirty(self) -> set[int]:
        out = np.zeros((self.npages + 63) // 64, "<u8")
        assert (
            self.machine.ioctl(self.fd, raw.GET_DIRTY_LOG, raw.dirty_log(0, out.ctypes.data)) == 0
        )
        return set(np.flatnonzero(np.unpackbits(out.view(np.uint8), bitorder="little")).tolist())


HALVES = """
[[guest]]
vcpus = [0, 1]
[[guest.phase]]
does = "write"
split = true
[[guest.phase]]
does = "port-out"
port = 1
[[guest.phase]]
does = "write"
gfns = 7
"""


def test_new_vcpus_of_a_scenario_s_kernel_have_their_scripts() -> None:
    with Machine(parsed(HALVES)) as machine:
        for _ in range(2):
            vm = Vm(machine, vcpus=3, npages=100)
            assert vm.run(1) == IO
            assert vm.dirty() == set(range(50, 100))
            assert (vm.run(0), vm.run(2)) == (IO, HLT)
            assert vm.dirty() == set(range(50))
            assert (vm.run(0), vm.dirty()) == (HLT, {7})


def test_vms_are_counted_as_they_are_made() -> None:
    with Machine(parsed(PORTS)) as machine:
        first, second, third = (Vm(machine) for _ in range(3))
        assert (third.run(), second.run(), first.run()) == (HLT, IO, IO)
        ports = [struct.unpack_from("<H", vm.pages[0], 34)[0] for vm in (first, second)]
        assert ports == [3, 1]


def test_read_only_memory_is_not_written() -> None:
    with Machine(one('does = "write"')) as machine:
        vm = Vm(machine, npages=10)
        form = raw.region(1, raw.READONLY, 100 * PAGE, PAGE, vm.area.address)
        assert machine.ioctl(vm.fd, raw.SET_REGION, form) == 0
        assert vm.run() == HLT, "and not by MMIO"


def test_a_script_given_by_hand_takes_the_place_of_a_scenario_s() -> None:
    with Machine(one('does = "write"')) as machine:
        vm = Vm(machine)
        machine.kernel.load_guest(vm.fd, 0, [PortOut(5, 5)])
        assert (vm.run(), vm.run(), vm.dirty()) == (IO, HLT, set())


# --- the scenarios that come with it


@pytest.mark.parametrize("name", scenario.names())
def test_a_shipped_scenario_runs_on_all_vcpus_and_can_be_stopped(name: str) -> None:
    with Machine(scenario.load(name)) as machine:
        vm = Vm(machine, vcpus=2, npages=1 << 14)
        for vcpu in range(2):
            thread = threading.Thread(target=vm.run, args=(vcpu,))
            thread.start()
            dirty: set[int] = set()
            deadline = time.monotonic() + 20
            while thread.is_alive() and not dirty and time.monotonic() < deadline:
                dirty = vm.dirty()
            vm.pages[vcpu][1] = 1
            thread.join(20)
            assert not thread.is_alive()
            assert dirty or vm.dirty() or (name, vcpu) == ("kexec", 1)


def test_the_shipped_scenarios_are_told_apart_by_what_they_are_about() -> None:
    abouts = [scenario.load(name).about for name in scenario.names()]
    assert len(scenario.names()) >= 6
    assert len(set(abouts)) == len(abouts)
    assert all(len(about) > 30 for about in abouts)


def shared_pages(vm: Vm, get: int) -> set[int]:
    """By the bitmap ioctl of v7 to v9, in which 1 is private."""
    out = np.zeros(vm.npages // 64, "<u8")
    wanted = Buffer(struct.pack("<QQQ", 0, vm.npages, out.ctypes.data))
    assert vm.machine.ioctl(vm.fd, get, wanted) == 0
    return set(np.flatnonzero(~np.unpackbits(out.view(np.uint8), bitorder="little") & 1).tolist())


def test_boot_linux_leaves_the_kernel_with_what_was_announced() -> None:
    with Machine(scenario.load("boot-linux")) as machine:
        vm = Vm(machine, npages=1 << 17)
        assert vm.run() == IO
        assert struct.unpack_from("<H", vm.pages[0], 34) == (0xF4,)
        shared = shared_pages(vm, 0x4018AEC8)
    assert len(shared) == 2 + 4 + 64 * 256 // 2 * 2 + 3 * 32 + 267


def test_a_kexec_shares_as_much_as_the_kernel_before() -> None:
    read = scenario.load("kexec")
    memory = {0: range(1 << 17)}
    steps = steps_of(read, count=10_000, memory=memory)
    ends = [n for n, step in enumerate(steps) if isinstance(step, PortOut)]
    boots = [steps[a + 1 : b] for a, b in pairwise([-1, *ends])]
    flips = [[s for s in boot if isinstance(s, Flip)] for boot in boots]
    assert len(flips[0]) == len(flips[1])
    assert isinstance(boots[1][0], WritePages)
    private = [sum(s.npages for s in some if s.private) for some in flips]
    assert private == [(1 << 17) + 510] * 2
