"""The guests and the machine under test do what the other tests take for granted."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc.plan import Parameters
from tests.qemu.guest import (
    MAILBOX_GPA,
    PAGE,
    REGION_GPA,
    REGION_PAGES,
    Guest,
    Stamper,
    Worker,
    Writer,
)
from tests.qemu.inside import differing_pages, threads
from tests.qemu.machine import Machine
from tests.qemu.setup import SETUPS, Setup

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.qemu, pytest.mark.alone]

UNCAPPED = Parameters(max_bandwidth_bytes_per_s=1e12)
SPARSE = pytest.param(Setup(ram="unreserved", ram_mib=1 << 16), id="64 GiB, sparse")


@pytest.mark.parametrize("setup", [*SETUPS, SPARSE])
def test_a_worker_counts_its_rounds(tmp_path: Path, setup: Setup) -> None:
    with Machine(tmp_path / "vm", Guest(1000, 3, Worker()), setup=setup) as qemu:
        before = qemu.memory.progress()
        qemu.wait_for("ten rounds", lambda: qemu.memory.progress() > before + 10)
        assert qemu.memory.harm() == 0
        assert [threads(qemu.pid)[tid] for tid in qemu.vcpu_tids] == ["CPU 0/KVM"]


def test_a_worker_sees_that_a_page_was_changed(tmp_path: Path) -> None:
    with Machine(tmp_path / "vm", Guest(1000, 3, Worker())) as qemu:
        word = qemu.memory.word(REGION_GPA)
        qemu.memory.write(REGION_GPA, (word + 1).to_bytes(4, "little"))
        qemu.wait_for("the harm to be seen", lambda: qemu.memory.harm() > 0)


def test_a_stamper_writes_the_pages_of_its_list_and_no_others(tmp_path: Path) -> None:
    gfns = (300, 16383, 5, 1023, 301)
    with Machine(tmp_path / "vm", Guest(100, writer=Stamper(gfns))) as qemu:
        dumps = []
        for number in (7, 8):
            qemu.stamp(number)
            qemu.command("stop")
            dumps.append(qemu.dump(tmp_path / f"dump-{number}"))
            qemu.command("cont")
    assert differing_pages(*dumps) == sorted((MAILBOX_GPA // PAGE, *gfns))


def test_a_writer_with_a_hot_and_a_cold_region_writes_as_many_pages_as_its_curve_says(
    tmp_path: Path,
) -> None:
    writer = Writer(4032, 40, 10, hot_pages=500)
    with Machine(tmp_path / "vm", Guest(1, writer=writer)) as qemu:

        def written_pages() -> int:
            region = qemu.memory.read(REGION_GPA, REGION_PAGES * PAGE)
            pages = np.frombuffer(region, "<u8").reshape(REGION_PAGES, -1)
            return int(np.count_nonzero(pages.any(axis=1)))

        qemu.wait_for("the last pages", lambda: written_pages() >= writer.curve[-1].shared_pages)
        time.sleep(0.1)
        assert written_pages() == writer.curve[-1].shared_pages == 4532


def test_the_dirty_log_holds_what_the_guest_writes_and_not_what_a_device_does(
    tmp_path: Path,
) -> None:
    """1024 pages in a second are 4 MiB/s."""
    gfns = tuple(range(4096, 5120))
    with Machine(tmp_path / "vm", Guest(100, writer=Stamper(gfns))) as qemu:
        qemu.log_dirty(seconds=1)
        qemu.stamp(1)
        assert qemu.dirty_rate_mib_per_s() == 4
        qemu.log_dirty(seconds=1)
        qemu.device.fill(4096 * PAGE, 1024, 0xAA)
        assert qemu.dirty_rate_mib_per_s() == 0
        assert qemu.memory.read(4096 * PAGE, 8) == b"\xaa" * 8


@pytest.mark.parametrize("setup", SETUPS)
def test_a_guest_migrates_into_its_twin_with_all_its_memory(tmp_path: Path, setup: Setup) -> None:
    guest = Guest(1000, 3, Worker())
    with (
        Machine(tmp_path / "vm", guest, setup=setup) as qemu,
        qemu.twin(tmp_path / "twin") as twin,
    ):
        qemu.migrate_to(twin.listen(), UNCAPPED)
        twin.wait_for_arrival()
        dumps = [one.dump(tmp_path / f"dump-{one.pid}") for one in (qemu, twin)]
        assert differing_pages(*dumps) == []
        before = twin.memory.progress()
        assert before == qemu.memory.progress()
        twin.command("cont")
        twin.wait_for("a round", lambda: twin.memory.progress() > before)
        assert twin.memory.harm() == 0


def test_a_saved_guest_is_loaded_with_all_its_memory(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    with Machine(tmp_path / "vm", Guest(1000, 3, Worker())) as qemu:
        qemu.save(saved, UNCAPPED)
        with qemu.twin(tmp_path / "twin") as twin:
            twin.load(saved)
            dumps = [one.dump(tmp_path / f"dump-{one.pid}") for one in (qemu, twin)]
    assert differing_pages(*dumps) == []
