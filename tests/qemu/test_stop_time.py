"""How long a thread of QEMU stands still for a look; `make bench` has the whole table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc.backend.tracee import TraceeBackend
from kvmenc.dirtysource import PeekSource
from kvmenc.tracee import Injector, Target
from tests.qemu.guest import Guest
from tests.qemu.machine import Machine
from tests.qemu.setup import Setup

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.memory.slots import MemSlot

pytestmark = [pytest.mark.qemu, pytest.mark.alone]

LOOKS = 100


def stop_us(qemu: Machine, slots: list[MemSlot]) -> list[float]:
    with Injector(Target.of(qemu.pid, qemu.vcpu_tids)) as injector:
        source = PeekSource(TraceeBackend(injector, slots), injector.target.vm_fd)
        attached = len(injector.stop_us)
        for _ in range(LOOKS):
            for _ in source.read(slots):
                pass
        return injector.stop_us[attached:]


def test_a_look_at_16_gib_stops_a_thread_for_150_us_and_500_us_at_the_99th_percentile(
    tmp_path: Path,
) -> None:
    """A busy machine only makes it longer: one run of thirty must fit."""
    runs: list[tuple[float, float]] = []
    with Machine(tmp_path / "vm", Guest(100), setup=Setup(ram_mib=16 << 10)) as qemu:
        slots = qemu.log_dirty()
        assert sum(slot.npages for slot in slots) > 16 << 18
        while len(runs) < 30:
            median, p99 = np.percentile(stop_us(qemu, slots), (50, 99))
            runs.append((round(median), round(p99)))
            if median <= 150 and p99 <= 500:
                return
    pytest.fail(f"median and 99th percentile of each run: {runs} us")
