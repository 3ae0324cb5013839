"""What looking into a running QEMU costs: the thread that stands still, and the guest.

Guests from 64 MiB to 1 TiB, sparse. A guest's speed is its own count of rounds, in short slices
that alternate, 30 s a side; a shared machine makes each slice differ, so the mean of the pairs is
told with its 95 % confidence interval.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from tests.qemu.guest import Guest, Worker
from tests.qemu.inside import cpu_s
from tests.qemu.looker import Looks, looker
from tests.qemu.machine import Machine
from tests.qemu.setup import Setup
from tests.support import need_kvm

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

SLICE_S = 0.1
SIDE_S = 30
#: Of the shortest log, a second.
LOGGED_S = 0.8
#: Of the longest one, a minute.
PAIRS_AT_ONCE = int(45 / SLICE_S / 2)
LOOKS_PER_S = 20
GIB = [1 / 16, 1, 4, 16, 64, 256, 1024]


@pytest.fixture(autouse=True)
def _kvm() -> None:
    need_kvm()


def setup(ram_gib: float) -> Setup:
    """Above 16 GiB in address space only; QEMU's usual CPU has too few address bits for 1 TiB."""
    ram_mib = int(ram_gib * 1024)
    if ram_gib <= 16:
        return Setup(ram_mib, cpu_limit_s=3600)
    return Setup(ram_mib, ram="unreserved", cpu_limit_s=3600, extra=("-cpu", "qemu64,phys-bits=42"))


class Slice(NamedTuple):
    """What a guest did in a while: rounds a second, and rounds a second of CPU time."""

    per_s: float
    per_cpu_s: float


def go_first(qemu: Machine) -> None:
    """Have the guest run before whatever else the machine does, if we may."""
    for tid in qemu.vcpu_tids:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, tid, -20)


def work(qemu: Machine, seconds: float) -> Slice:
    [vcpu] = qemu.vcpu_tids

    def now() -> tuple[float, float, int]:
        return time.perf_counter(), cpu_s(qemu.pid, vcpu), qemu.memory.progress()

    before = now()
    time.sleep(seconds)
    elapsed_s, cpu, rounds = (after - start for after, start in zip(now(), before, strict=True))
    rounds %= 1 << 32
    return Slice(rounds / elapsed_s, rounds / cpu)


class Slowdown(NamedTuple):
    """Of many pairs of slices, in percent.

    Attributes:
        percent: the mean.
        half: half of its 95 % confidence interval.
        median: what a few disturbed slices do not change.
        pairs: how many.
    """

    percent: float
    half: float
    median: float
    pairs: int

    def __str__(self) -> str:
        return f"{self.percent:.2f} % +- {self.half:.2f} (median {self.median:.2f}, {self.pairs})"


def slowdown(pairs: Sequence[tuple[float, float]]) -> Slowdown:
    """Of speeds without and with; logarithms treat a disturbance of either side alike."""
    each = [100 * math.log(fast / slow) for fast, slow in pairs]
    half = 1.96 * statistics.stdev(each) / math.sqrt(len(each))
    return Slowdown(statistics.mean(each), half, statistics.median(each), len(each))


def report(what: str, pairs: Sequence[tuple[Slice, Slice]]) -> float:
    """Print it; returns the slowdown in percent that can be told from noise."""
    clock = slowdown([(fast.per_s, slow.per_s) for fast, slow in pairs])
    cpu = slowdown([(fast.per_cpu_s, slow.per_cpu_s) for fast, slow in pairs])
    print(f"{what}: slower by {clock} by the clock, {cpu} by the vCPU's CPU time")
    return clock.percent - clock.half


def test_how_long_a_thread_stands_still_by_the_size_of_the_guest(tmp_path: Path) -> None:
    """Of all looks, and of the quietest tenth, which has to keep within the bounds.

    A look is longer: the thread is not stopped any more while it copies the bitmap.
    """
    print("\n     GiB  stop us: median    p99    max  quiet p99  look us: median      p99")
    tables = {ram_gib: looks_at(tmp_path / f"{ram_gib}", ram_gib) for ram_gib in GIB}
    for ram_gib, looks in tables.items():
        stop, look = (np.percentile(it, (50, 99, 100)) for it in (looks.stop_us, looks.look_us))
        print(
            f"{ram_gib:8g} {stop[0]:16.0f} {stop[1]:6.0f} {stop[2]:6.0f} {quiet_p99(looks):10.0f}"
            f" {look[0]:16.0f} {look[1]:8.0f}"
        )
    for looks in (tables[ram_gib] for ram_gib in GIB if ram_gib <= 16):
        assert np.median(looks.stop_us) <= 150
        assert quiet_p99(looks) <= 500


def quiet_p99(looks: Looks) -> float:
    return min(float(np.percentile(it, 99)) for it in np.array_split(looks.stop_us, 10))


def looks_at(folder: Path, ram_gib: float) -> Looks:
    """10 s of looks, of a running guest that leaves a CPU to others."""
    with Machine(folder, Guest(1000, writer=Worker()), setup=setup(ram_gib)) as qemu:
        qemu.give_way()
        slots = qemu.log_dirty()
        with looker(qemu, slots, 1 / 100) as one:
            one.say("go")
            time.sleep(10)
            one.say("rest")
    attaching = len(one.looks.stop_us) - len(one.looks.look_us)
    return Looks(one.looks.stop_us[attaching:], one.looks.look_us)


# A round of few pages, so that a slice has many: some hosts take microseconds for each.
ROUND_PAGES = 100


@pytest.mark.parametrize("ram_gib", [1, 16])
def test_a_guest_is_less_than_1_percent_slower(tmp_path: Path, ram_gib: float) -> None:
    """At 20 looks a second; the log is on in both."""
    pairs: list[tuple[Slice, Slice]] = []
    with Machine(
        tmp_path / "vm", Guest(ROUND_PAGES, writer=Worker()), setup=setup(ram_gib)
    ) as qemu:
        go_first(qemu)
        while missing := round(SIDE_S / SLICE_S) - len(pairs):
            pairs += while_logged(qemu, min(missing, PAIRS_AT_ONCE))
            qemu.dirty_rate_mib_per_s()
    print()
    assert report(f"{LOOKS_PER_S} looks a second, {ram_gib} GiB", pairs) < 1


def while_logged(qemu: Machine, count: int) -> list[tuple[Slice, Slice]]:
    """Pairs without and with looks, in both orders by turns."""
    slots = qemu.log_dirty()
    pairs = []
    with looker(qemu, slots, 1 / LOOKS_PER_S) as one:
        for number in range(count):
            sides = {}
            for line in ("rest", "go") if number % 2 else ("go", "rest"):
                one.say(line)
                time.sleep(0.02)
                sides[line] = work(qemu, SLICE_S)
            pairs.append((sides["rest"], sides["go"]))
    return pairs


@pytest.mark.parametrize("filled_pages", [ROUND_PAGES, 2000])
def test_what_the_log_itself_costs(tmp_path: Path, filled_pages: int) -> None:
    """Every page that the guest writes is written for the first time once a log: that costs."""
    pairs, starts_ms = [], []
    with Machine(tmp_path / "vm", Guest(filled_pages, writer=Worker()), setup=setup(1)) as qemu:
        go_first(qemu)
        for _ in range(round(SIDE_S / LOGGED_S)):
            off = work(qemu, LOGGED_S)
            started = time.perf_counter()
            qemu.log_dirty(seconds=1)
            starts_ms.append((time.perf_counter() - started) * 1e3)
            pairs.append((off, work(qemu, LOGGED_S)))
            qemu.dirty_rate_mib_per_s()
    print(f"\nstarting the log: {statistics.median(starts_ms):.0f} ms")
    report(f"the log, {filled_pages} pages written round and round", pairs)
