"""Streams of steps: popularity, bursts, moving working sets, what Linux and OVMF flip at boot."""

from __future__ import annotations

import math
import time
import tracemalloc
from collections import Counter
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fakekvm import execution, guests, host_named
from fakekvm.guests import Flip, Halt, PortOut, Rest, WritePages
from fakekvm.guests.writers import _scatter
from fakekvm.guests.zipf import ZipfRanks
from tests.fakekvm import raw
from tests.fakekvm.raw import FakeMachine, Guest
from tests.fakekvm.steps import as_text, pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from fakekvm.guests import Step

GFNS = range(1000, 1400)
GIB = 1 << 18
RAM_4_GIB = [range(3 * GIB), range(4 * GIB, 5 * GIB)]  # as QEMU lays it out around the PCI hole
IO, HLT, INTR = 2, 5, 10

STREAMS: dict[str, Callable[[np.random.Generator], Iterator[Step]]] = {
    "zipf": lambda rng: guests.zipf_writer(GFNS, rng, 1.1),
    "bursts": lambda rng: guests.burst_writer(GFNS, rng, 700),
    "phases": lambda rng: guests.phase_writer(GFNS, rng, 50, 1024),
    "churn": lambda rng: guests.swiotlb_churn(GFNS, rng),
    "firmware": lambda rng: guests.firmware_flips(GFNS, rng, 50),
    "boot": lambda rng: guests.linux_flips(RAM_4_GIB, rng),
    "reboot": lambda rng: guests.reboot_flips(RAM_4_GIB, rng),
}


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_determined_by_its_seed(
    stream: Callable[[np.random.Generator], Iterator[Step]],
) -> None:
    first, again, other = (as_text(stream(rng(seed)), 40) for seed in (1, 1, 2))
    assert first == again != other


# --- writers


@pytest.mark.parametrize("exponent", [0, 0.5, 1, 1.3, 2.5])
def test_ranks_are_drawn_with_zipf_s_weights(exponent: float) -> None:
    count, draws = 300, 100_000
    found = np.bincount(ZipfRanks(count, exponent).draw(draws, rng()), minlength=count)
    weights = 1 / np.arange(1, count + 1) ** exponent
    expected = draws * weights / weights.sum()
    assert np.all(np.abs(found - expected) < 5 * np.sqrt(expected) + 5)
    assert found.size == count


@pytest.mark.parametrize(("count", "exponent"), [(1, 1.0), (2, 16.0), (1 << 40, 0.9), (3, 0.0)])
def test_ranks_are_ranks_whatever_the_numbers(count: int, exponent: float) -> None:
    ranks = ZipfRanks(count, exponent).draw(2000, rng())
    assert 0 <= ranks.min() <= ranks.max() < count


@given(st.integers(1, 3000), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_each_rank_has_a_page_of_its_own(count: int, seed: int) -> None:
    stride, shift = _scatter(count, rng(seed))
    assert {(rank * stride + shift) % count for rank in range(count)} == set(range(count))


@pytest.mark.parametrize("count", [1 << 31, 1 << 40])
def test_ranks_are_scattered_without_leaving_64_bits(count: int) -> None:
    stride, shift = _scatter(count, rng())
    assert (count - 1) * stride + shift < 1 << 63
    assert math.gcd(stride, count) == 1


def test_the_popular_pages_of_a_zipf_writer_are_scattered_and_get_their_share() -> None:
    stream = guests.zipf_writer(GFNS, rng(), 1.0, chunk_pages=1000)
    written = Counter(gfn for step in islice(stream, 50) for gfn in pages(step))
    assert set(written) <= set(GFNS)
    top = [gfn for gfn, _ in written.most_common(40)]
    weights = [1 / rank for rank in range(1, 401)]
    share = sum(written[gfn] for gfn in top) / written.total()
    assert share == pytest.approx(sum(weights[:40]) / sum(weights), abs=0.02)
    assert max(top) - min(top) > 200
    assert min(abs(a - b) for a, b in pairwise(top[:8])) > 40


@pytest.mark.parametrize(
    "make",
    [
        lambda: guests.zipf_writer(range(1 << 40), rng()),
        lambda: guests.phase_writer(range(1 << 40), rng()),
        lambda: guests.burst_writer(range(1 << 40), rng()),
        lambda: guests.swiotlb_churn(range(1 << 40), rng()),
        lambda: guests.write_then_flip(range(1 << 24), rng()),
        lambda: guests.boot_flips([range(1 << 40)], rng(), firmware_conversions=0),
    ],
    ids=["zipf", "phases", "bursts", "churn", "in place", "boot"],
)
def test_a_stream_on_a_large_guest_takes_next_to_nothing(
    make: Callable[[], Iterator[Step]],
) -> None:
    tracemalloc.start()
    for _ in islice(make(), 20):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 << 20


@given(st.integers(1, 3000), st.integers(1, 700))
@settings(max_examples=15, deadline=None)
def test_a_burst_is_of_its_size_and_followed_by_a_rest(burst: int, chunk: int) -> None:
    steps = guests.burst_writer(GFNS, rng(), burst, 0.25, chunk)
    for _ in range(3):
        written: list[int] = []
        while not isinstance(step := next(steps), Rest):
            assert 1 <= len(pages(step)) <= chunk
            written += pages(step)
        assert len(written) == burst
        assert set(written) <= set(GFNS)
        assert step.seconds == 0.25


def test_working_sets_are_runs_that_are_written_throughout_and_left() -> None:
    steps = guests.phase_writer(GFNS, rng(), set_pages=50, set_writes=1000, chunk_pages=250)
    sets = []
    for _ in range(20):
        written = {gfn for step in islice(steps, 4) for gfn in pages(step)}
        assert max(written) - min(written) == 49
        assert len(written) == 50
        sets.append(min(written))
    assert min(sets) >= GFNS.start
    assert max(sets) + 49 <= GFNS[-1]
    assert len(set(sets)) > 15


def test_a_working_set_larger_than_memory_is_all_of_it() -> None:
    steps = guests.phase_writer(GFNS, rng(), set_pages=10_000, chunk_pages=4000)
    assert {gfn for step in islice(steps, 4) for gfn in pages(step)} == set(GFNS)


# --- steps of streams


def flat(steps: Iterable[Step]) -> list[object]:
    """Steps page by page: what a run of them means."""
    found: list[object] = []
    for step in steps:
        if isinstance(step, WritePages):
            found += [(gfn, step.value) for gfn in pages(step)]
        elif isinstance(step, Flip):
            found += [(gfn, step.private) for gfn in range(step.gfn, step.gfn + step.npages)]
        else:
            found.append(step)
    return found


@given(
    st.lists(st.tuples(st.integers(1, 30), st.integers(0, 9)), min_size=1, max_size=6), st.data()
)
@settings(max_examples=100, deadline=None)
def test_a_stream_placed_on_areas_means_their_pages(
    gaps: list[tuple[int, int]], data: st.DataObject
) -> None:
    areas, at = [], 0
    for gap, size in gaps:
        areas.append(range(at + gap, at + gap + size))
        at = areas[-1].stop
    gfns = [gfn for area in areas for gfn in area]
    first = data.draw(st.integers(0, len(gfns)))
    last = data.draw(st.integers(first, len(gfns)))
    some = data.draw(st.lists(st.sampled_from(range(len(gfns))), max_size=20)) if gfns else []
    steps: list[Step] = [
        WritePages(range(first, last), 7),
        Flip(first, last - first, private=False),
        Halt(),
        WritePages(np.array(some, np.int64), 8),
        WritePages(range(first, last, 3), 9),
    ]
    expected: list[object] = [(gfn, 7) for gfn in gfns[first:last]]
    expected += [(gfn, False) for gfn in gfns[first:last]]
    expected += [Halt(), *((gfns[n], 8) for n in some), *((gfn, 9) for gfn in gfns[first:last:3])]
    assert flat(guests.placed(steps, areas)) == expected


def test_a_placed_range_stays_a_range() -> None:
    (step,) = guests.placed([WritePages(range(1 << 38), 1)], [range(1 << 39, 1 << 40)])
    assert isinstance(step, WritePages)
    assert step.gfns == range(1 << 39, (1 << 39) + (1 << 38))


def test_a_paced_stream_rests_as_long_as_its_rate_says() -> None:
    steps: list[Step] = [WritePages(range(50), 1), Halt(), WritePages(range(10), 2)]
    kept = list(guests.paced(steps, 1000))
    assert [step for step in kept if not isinstance(step, Rest)] == steps
    assert [(n, s.seconds) for n, s in enumerate(kept) if isinstance(s, Rest)] == [
        (1, 0.05),
        (4, 0.01),
    ]


# --- flips


class Replay:
    """What a guest has announced and written, page by page."""

    def __init__(self) -> None:
        self.shared: set[int] = set()
        self.announced = 0
        self.written: set[int] = set()

    def run(self, steps: Iterable[Step]) -> Replay:
        for step in steps:
            if isinstance(step, Flip):
                run = range(step.gfn, step.gfn + step.npages)
                self.announced += 1
                if not step.private:
                    self.shared.update(run)
                elif len(run) < 1000:
                    self.shared.difference_update(run)
                else:
                    self.shared = {gfn for gfn in self.shared if gfn not in run}
            elif isinstance(step, WritePages):
                self.written.update(step.gfns)
        return self


def announced(steps: Iterable[Step]) -> int:
    return sum(isinstance(step, Flip) for step in steps)


def linux_count(ram: list[range], cpus: int) -> int:
    """By hand: E820, .bss..decrypted and what of it is freed, CPUs, SWIOTLB, pools, drivers."""
    mib = sum(len(area) for area in ram) >> 8
    swiotlb = math.ceil(min(max(mib * 6 / 100, 64), 1024) / 2)
    pools = 3 * min(max(mib // 1024 * 32, 32), 1024)
    return len(ram) + 1 + 510 + 3 * cpus + swiotlb + pools + 267


def test_a_boot_announces_as_much_as_one_that_was_counted() -> None:
    assert announced(guests.boot_flips(RAM_4_GIB, rng(), cpus=4)) == 19_479
    assert announced(guests.linux_flips(RAM_4_GIB, rng(), cpus=4)) == 1_299


@pytest.mark.parametrize(
    ("ram", "cpus"),
    [
        ([range(GIB)], 1),
        (RAM_4_GIB, 64),
        ([range(2 * GIB), range(4 * GIB, 18 * GIB)], 8),
        ([range(160), range(256, 3 * GIB), range(4 * GIB, 257 * GIB)], 256),
    ],
    ids=["1 GiB", "64 CPUs", "16 GiB", "256 GiB"],
)
def test_how_much_linux_announces_follows_from_memory_and_cpus(ram: list[range], cpus: int) -> None:
    assert announced(guests.linux_flips(ram, rng(), cpus)) == linux_count(ram, cpus)


def test_what_is_shared_after_a_boot_is_for_devices_and_the_host() -> None:
    replay = Replay().run(guests.linux_flips(RAM_4_GIB, rng(), cpus=4))
    swiotlb_pages = 123 * 512  # 6 % of 4 GiB in 2 MiB
    assert len(replay.shared) == 2 + 4 + swiotlb_pages + 3 * 128 + 267
    assert max(replay.shared) < 3 * GIB
    # The SWIOTLB and the pools are not written when they are made shared; all others are.
    assert len(replay.shared - replay.written) == swiotlb_pages + 3 * 128


def test_what_is_for_devices_lies_below_4_gib() -> None:
    shares = [
        step
        for step in guests.boot_flips([range(16 * GIB)], rng(), firmware_conversions=9)
        if isinstance(step, Flip) and not step.private
    ]
    assert max(step.gfn + step.npages for step in shares) <= 4 * GIB


def test_in_a_small_guest_there_is_less_of_everything_but_of_nothing_nothing() -> None:
    steps = list(guests.linux_flips([range(8 << 8)], rng(), cpus=4))
    bss, _, bss_shared, first_cpu = steps[:4]
    assert isinstance(bss_shared, Flip)
    assert len(pages(bss)) == bss_shared.npages > 2
    assert len(pages(first_cpu)) == 1
    swiotlb, *singles = [s for s in steps[19:] if isinstance(s, Flip) and not s.private]
    assert swiotlb.npages > 100
    assert len(singles) > 50
    assert any(len(pages(s)) > 1 for s in steps[19:-1] if isinstance(s, WritePages)), "drivers"


def test_linux_announces_in_its_order() -> None:
    steps = list(guests.linux_flips(RAM_4_GIB, rng(), cpus=2))
    bss, first, second, bss_shared = steps[:4]
    assert first == Flip(0, 3 * GIB, private=True)
    assert second == Flip(4 * GIB, GIB, private=True)
    assert bss_shared == Flip(pages(bss)[0], 512, private=False)
    assert pages(bss)[0] % 512 == 0
    for at in (4, 8):
        (gfn,) = pages(steps[at])
        assert steps[at + 1 : at + 4] == [Flip(gfn, 1, private=False)] * 3, (
            "in place: written first"
        )
    assert all(isinstance(s, Flip) and s.npages == 512 and not s.private for s in steps[12:135])
    *_, last_flip, poison = steps
    assert last_flip == Flip(pages(bss)[-1], 1, private=True)
    assert pages(poison) == pages(bss)[2:]


def test_firmware_announces_first_writes_then_and_leaves_all_private() -> None:
    steps = list(guests.firmware_flips(GFNS, rng(), 300))
    assert len(steps) == 300 * 4
    sizes = set()
    for shares, fills, privates, zeroes in zip(*[iter(steps)] * 4, strict=True):
        assert isinstance(shares, Flip)
        assert privates == Flip(shares.gfn, shares.npages, private=True)
        assert not shares.private
        run = list(range(shares.gfn, shares.gfn + shares.npages))
        assert pages(fills) == pages(zeroes) == run
        assert set(run) <= set(GFNS)
        sizes.add(len(run))
    assert sizes == {1, 2, 3, 4}


def test_a_boot_is_firmware_then_linux_in_other_pages() -> None:
    steps = list(guests.boot_flips(RAM_4_GIB, rng(), firmware_conversions=100))
    firmware, linux = steps[:400], steps[400:]
    touched = Replay().run(firmware)
    assert (touched.announced, touched.shared) == (200, set())
    assert announced(linux) == 1_299
    later = Replay().run(step for step in linux if not isinstance(step, Flip) or not step.private)
    assert not touched.written & (later.written | later.shared)


def test_a_new_kernel_writes_what_the_old_one_shared_before_it_announces_anything() -> None:
    before = Replay().run(guests.linux_flips(RAM_4_GIB, rng()))
    steps = list(guests.reboot_flips(RAM_4_GIB, rng(2)))
    first_flip = next(n for n, step in enumerate(steps) if isinstance(step, Flip))
    early = {gfn for step in steps[:first_flip] for gfn in pages(step)}
    assert len(early & before.shared) > 7000
    first, second = steps[first_flip : first_flip + 2]
    assert [first, second] == [Flip(0, 3 * GIB, private=True), Flip(4 * GIB, GIB, private=True)]
    after = before.run(steps).shared
    assert len(after) == 2 + 4 + 123 * 512 + 3 * 128 + 267, "nothing is left of the old kernel's"
    through_firmware = guests.reboot_flips(RAM_4_GIB, rng(), firmware_conversions=10)
    assert announced(through_firmware) == 20 + 1_299


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 3000)), max_size=4), st.integers(1, 40)
)
@settings(max_examples=60, deadline=None)
def test_any_memory_can_be_booted_and_nothing_is_touched_outside(
    gaps: list[tuple[int, int]], cpus: int
) -> None:
    ram, at = [], 0
    for gap, size in gaps:
        ram.append(range(at + gap, at + gap + size))
        at = ram[-1].stop
    for make in (guests.boot_flips, guests.reboot_flips):
        steps = list(make(ram, rng(), cpus, 20))
        replay = Replay().run(s for s in steps if not isinstance(s, Flip) or not s.private)
        assert replay.shared | replay.written <= {gfn for area in ram for gfn in area}
        assert all(step.npages > 0 for step in steps if isinstance(step, Flip))


def test_buffers_come_and_go_and_are_used_while_they_are_there() -> None:
    shared: dict[int, int] = {}
    used = freed = 0
    sizes = set()
    steps = guests.swiotlb_churn(GFNS, rng(), most_pages=6)
    for step in islice(steps, 3000):
        if not isinstance(step, Flip):
            used += 1
            first = pages(step)[0]
            assert pages(step) == list(range(first, first + shared[first]))
            continue
        run = range(step.gfn, step.gfn + step.npages)
        assert set(run) <= set(GFNS)
        if step.private:
            freed += 1
            assert shared.pop(step.gfn) == step.npages, "freed as it was made"
        else:
            others = [range(gfn, gfn + size) for gfn, size in shared.items()]
            assert not any(set(run) & set(other) for other in others)
            shared[step.gfn] = step.npages
            sizes.add(step.npages)
        assert pages(next(steps)) == list(run), "zeroed, or written by the next owner"
    assert sizes == {1, 2, 3, 4, 5, 6}
    assert min(used, freed, len(shared)) > 20


# --- a vCPU that rests


class Time:
    """Stands in for ``time``: sleeping takes none, and at some moment userspace wants an exit."""

    def __init__(self, guest: Guest) -> None:
        self.now = 0.0
        self.stop_at = math.inf
        self.longest = 0.0
        self._guest = guest

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.longest = max(self.longest, seconds)
        self._guest.run_area[1] = self.now >= self.stop_at


def run(guest: Guest, stop_at: float = math.inf, clock: Time | None = None) -> raw.Result:
    """The exit's reason, or an errno."""
    guest.run_area[1] = 0
    if clock is not None:
        clock.stop_at = stop_at
    result = guest.machine.ioctl(guest.vcpu, raw.RUN)
    return result or guest.exit_reason()


def test_a_vcpu_rests_as_long_as_it_is_told(fake: FakeMachine) -> None:
    guest = Guest(fake)
    fake.kernel.load_guest(guest.vm, 0, [Rest(0.03), WritePages(range(3), 1), Halt()])
    start = time.monotonic()
    assert run(guest) == HLT
    assert time.monotonic() - start >= 0.03
    assert guest.get_log() == "[0, 1, 2]"


def test_a_vcpu_at_rest_can_be_stopped_and_its_time_goes_on(
    fake: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = Guest(fake)
    clock = Time(guest)
    monkeypatch.setattr(execution, "time", clock)
    fake.kernel.load_guest(guest.vm, 0, [Rest(10), PortOut(1, 2)])
    assert run(guest, 4, clock) == "EINTR"
    assert guest.exit_reason() == INTR
    assert clock.now == pytest.approx(4, abs=0.01)
    clock.now = 7
    assert run(guest, 8, clock) == "EINTR"
    assert run(guest, clock=clock) == IO
    assert clock.now == pytest.approx(10, abs=0.01)
    assert clock.longest <= 0.01, "so late it sees that it is to stop"


def test_a_new_script_does_not_rest_for_the_old_one(
    fake: FakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = Guest(fake)
    clock = Time(guest)
    monkeypatch.setattr(execution, "time", clock)
    fake.kernel.load_guest(guest.vm, 0, [Rest(10)])
    assert run(guest, 1, clock) == "EINTR"
    fake.kernel.load_guest(guest.vm, 0, [Halt()])
    assert run(guest, clock=clock) == HLT
    assert clock.now < 2


# --- hosts


def cpuid_vendor(machine: FakeMachine) -> bytes:
    table = raw.Buffer((4).to_bytes(8, "little") + bytes(160))
    assert machine.ioctl(machine.open(), raw.GET_SUPPORTED_CPUID, table) == 0
    ebx, ecx, edx = (table.bytes[at : at + 4] for at in (24, 28, 32))
    return ebx + edx + ecx


@pytest.mark.parametrize(
    ("name", "vendor", "types", "address_spaces", "reserved", "sev"),
    [
        ("intel", b"GenuineIntel", {0}, 2, 576, "ENOTTY"),
        ("amd", b"AuthenticAMD", {0}, 2, 64, "ENOTTY"),
        ("sev-without-es", b"AuthenticAMD", {0, 2}, 0, 64, 0),
        ("sev-es", b"AuthenticAMD", {0, 2, 3}, 0, 64, 0),
        ("snp", b"AuthenticAMD", {0, 1, 2, 3, 4}, 0, 64, 0),
        ("csv", b"HygonGenuine", {0, 2, 3}, 0, 64, 0),
        ("sev-v10", b"AuthenticAMD", {0}, 0, 64, 0),
    ],
)
def test_hosts_answer_as_their_names_say(
    name: str,
    vendor: bytes,
    types: set[int],
    address_spaces: int,
    reserved: int,
    sev: raw.Result,
) -> None:
    with FakeMachine(host_named(name)) as fake:
        kvm = fake.open()
        assert cpuid_vendor(fake) == vendor
        made = {t for t in range(7) if fake.ioctl(kvm, raw.CREATE_VM, t) != "EINVAL"}
        assert made == types
        assert fake.ioctl(kvm, raw.CHECK_EXTENSION, 118) == address_spaces
        assert fake.kernel.host.ring_reserved_entries == reserved
        assert fake.ioctl(raw.new_vm(fake), raw.MEMORY_ENCRYPT_OP) == sev


def test_guest_addresses_end_with_the_cpu_s() -> None:
    for name, bits in (("intel", 46), ("amd", 48), ("mainline", 52)):
        with FakeMachine(host_named(name)) as fake:
            guest = Guest(fake, npages=4)
            end = 1 << bits - 12
            assert guest.region(slot=1, gfn=end - 1, npages=1) == 0
            assert guest.region(slot=2, gfn=end, npages=1) == "EINVAL"


def test_cpuid_knows_es_where_its_vms_can_be_had() -> None:
    for name, bits in (("sev-without-es", 0b10), ("sev-es", 0b1010)):
        with FakeMachine(host_named(name)) as fake:
            table = raw.Buffer((4).to_bytes(8, "little") + bytes(160))
            assert fake.ioctl(fake.open(), raw.GET_SUPPORTED_CPUID, table) == 0
            eax = int.from_bytes(table.bytes[8 + 80 + 12 : 8 + 80 + 16], "little")
            assert eax & 0b1010 == bits
