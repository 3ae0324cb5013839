"""Looking at a QEMU's dirty log takes no bit of it, and no migration misses one."""

from __future__ import annotations

import random
from contextlib import nullcontext
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc.backend.tracee import TraceeBackend
from kvmenc.dirtysource import PeekSource
from kvmenc.plan import Parameters
from kvmenc.tracee import Injector, Target
from tests.qemu.guest import PAGE, REGION_PAGES, Guest, Stamper, Writer
from tests.qemu.inside import differing_pages
from tests.qemu.looker import looker
from tests.qemu.machine import Machine
from tests.qemu.setup import SETUPS, Setup

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.memory.slots import MemSlot

pytestmark = [pytest.mark.qemu, pytest.mark.alone]

UNCAPPED = Parameters(max_bandwidth_bytes_per_s=1e12)
#: Some of every word position, and all of some words.
GFNS = (*random.Random(7).sample(range(0x100, 0x3000), 1000), *range(0x3000, 0x3018))


def dirty_gfns(source: PeekSource, slots: list[MemSlot]) -> set[int]:
    """Every dirty gfn of the first 64 MiB."""
    found: set[int] = set()
    for slot, words in source.read(slots):
        bits = np.unpackbits(words.view(np.uint8), bitorder="little")[: slot.npages]
        found.update(int(page) + slot.base_gfn for page in np.flatnonzero(bits))
    return found


@pytest.mark.parametrize("setup", SETUPS)
def test_at_rest_every_look_sees_the_pages_written_and_no_others(
    tmp_path: Path, setup: Setup
) -> None:
    with Machine(tmp_path / "vm", Guest(100, writer=Stamper(GFNS)), setup=setup) as qemu:
        slots = qemu.log_dirty()
        qemu.stamp(1)
        with Injector(Target.of(qemu.pid, qemu.vcpu_tids)) as injector:
            source = PeekSource(TraceeBackend(injector, slots), injector.target.vm_fd)
            assert [dirty_gfns(source, slots) for _ in range(3)] == [set(GFNS)] * 3


def measured_rate(qemu: Machine, number: int) -> int:
    """By QEMU, in a second in which 1024 pages are written."""
    qemu.log_dirty(seconds=1)
    qemu.stamp(number)
    return qemu.dirty_rate_mib_per_s()


def test_qemu_measures_the_same_dirty_rate_while_it_is_looked_at(tmp_path: Path) -> None:
    with Machine(tmp_path / "vm", Guest(100, writer=Stamper(GFNS))) as qemu:
        slots = qemu.log_dirty(seconds=1)
        qemu.dirty_rate_mib_per_s()
        assert measured_rate(qemu, 1) == 4
        with looker(qemu, slots) as one:
            one.say("go")
            assert measured_rate(qemu, 2) == 4
        assert len(one.looks.look_us) > 20


@pytest.mark.parametrize("setup", SETUPS)
def test_a_migration_loses_nothing_while_it_is_looked_at(tmp_path: Path, setup: Setup) -> None:
    """A running guest, as fast as looks can be made, until the guest is stopped and after."""
    guest = Guest(REGION_PAGES, writer=Writer(4032, 40, 10))
    limits = Parameters(max_bandwidth_bytes_per_s=64 * 2**20, downtime_limit_ms=200)
    with (
        Machine(tmp_path / "vm", guest, setup=setup) as qemu,
        qemu.twin(tmp_path / "twin") as twin,
    ):
        slots = qemu.log_dirty()
        with looker(qemu, slots) as one:
            one.say("go")
            real = qemu.migrate_to(twin.listen(), limits)
            twin.wait_for_arrival()
        assert real.ram.dirty_sync_count > 2
        assert len(one.looks.look_us) > 20
        dumps = [it.dump(tmp_path / f"dump-{it.pid}") for it in (qemu, twin)]
    assert differing_pages(*dumps) == []


def test_a_guest_saved_after_it_was_looked_at_is_loaded_as_one_that_was_not(
    tmp_path: Path,
) -> None:
    dumps = []
    for is_looked_at in (False, True):
        folder = tmp_path / str(is_looked_at)
        folder.mkdir()
        with Machine(folder / "vm", Guest(100, writer=Stamper(GFNS))) as qemu:
            slots = qemu.log_dirty(seconds=1)
            qemu.dirty_rate_mib_per_s()
            with looker(qemu, slots) if is_looked_at else nullcontext() as one:
                if one:
                    one.say("go")
                measured_rate(qemu, 1)
            qemu.stamp(2)
            qemu.save(folder / "saved", UNCAPPED)
            with qemu.twin(folder / "twin") as twin:
                twin.load(folder / "saved")
                dumps.append(twin.dump(folder / "dump"))
    assert differing_pages(*dumps) == []
    assert dumps[0].read_bytes()[GFNS[0] * PAGE] == 2
