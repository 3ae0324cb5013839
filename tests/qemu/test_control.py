"""Facts of a real QEMU, and control of its dirty-rate measurement."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kvmenc.encstate.kinds import VmKind
from kvmenc.errors import HostError
from kvmenc.plan import Parameters
from kvmenc.qemu.dirtyrate import DirtyRate, pages_of_rate, rate_samples
from kvmenc.qemu.facts import read_facts
from kvmenc.qemu.monitor import CommandError
from kvmenc.qemu.qmp import Qmp
from tests.qemu.guest import Guest, Writer
from tests.qemu.logged import Logged, Pipe
from tests.qemu.machine import Machine
from tests.qemu.setup import Setup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.qemu, pytest.mark.alone]

WRITER = Writer(pages=2016, batch=504, period_ms=20.0)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    setup = Setup(extra=("-smp", "2"))
    with Machine(tmp_path / "vm", Guest(16128, writer=WRITER), setup=setup) as machine:
        yield machine


@pytest.fixture
def qmp(machine: Machine) -> Iterator[Qmp]:
    with Qmp(machine.second_socket) as qmp:
        yield qmp


def test_the_facts_are_those_of_the_process(machine: Machine, qmp: Qmp) -> None:
    facts = read_facts(qmp)
    assert (facts.pid, list(facts.vcpu_tids)) == (machine.pid, machine.vcpu_tids)
    assert len(facts.vcpu_tids) == 2
    assert facts.version >= (7, 2, 0)
    assert (facts.kind, facts.vm_status) == (VmKind.PLAIN, "running")
    assert facts.migration is None
    assert (facts.machine or "").startswith("pc-i440fx-")
    assert read_facts(qmp, machine.pid) == facts


def test_another_process_is_not_taken_for_it(machine: Machine, qmp: Qmp, tmp_path: Path) -> None:
    with pytest.raises(HostError, match=f"process {os.getpid()} is not the QEMU that answers"):
        read_facts(qmp, os.getpid())
    with (
        Machine(tmp_path / "other", Guest(1)) as other,
        pytest.raises(HostError, match=f"process {other.pid} is not the QEMU that answers"),
    ):
        read_facts(qmp, other.pid)


def test_a_guest_that_tcg_runs_is_refused(tmp_path: Path) -> None:
    """The BIOS of the tests is the same to TCG."""
    with (
        Pipe() as pipe,
        Logged(tmp_path / "vm", pipe.theirs, accel="tcg") as qemu,
        pytest.raises(HostError, match="not run by KVM"),
    ):
        read_facts(qemu.qmp)


def test_a_measurement_finds_the_pages_that_the_guest_writes(qmp: Qmp) -> None:
    """All the pages of its round are written within any 100 ms, and nothing else."""
    rate = DirtyRate(qmp)
    assert rate.status() == "unstarted"
    rate.wait()
    rate.start(1)
    assert rate.status() in {"unstarted", "measuring"}
    rate.wait()
    assert rate.status() == "measured"
    low, high = pages_of_rate(rate.rate(), 1000, in_ms=rate.in_ms)
    assert low <= WRITER.pages <= high


def test_samples_hold_the_true_number_within_their_error(qmp: Qmp) -> None:
    """Of the longer ones; a guest on a busy host falls behind for tens of milliseconds."""
    points = list(rate_samples(qmp, 3.5))
    assert len(points) >= 2
    long = [point for point in points if point.ms >= 800]
    assert all(abs(point.pages - WRITER.pages) <= point.error_pages for point in long)
    assert [point.since_s for point in points] == sorted(point.since_s for point in points)


def test_a_second_measurement_is_refused_while_one_goes_on(qmp: Qmp) -> None:
    rate = DirtyRate(qmp)
    rate.start(1)
    with pytest.raises(HostError, match="being measured already"):
        DirtyRate(qmp).start(1)
    rate.wait()
    rate.start(1)


def test_a_migration_is_not_disturbed_and_one_that_is_over_is_no_hindrance(
    machine: Machine, qmp: Qmp
) -> None:
    machine.command("migrate-set-parameters", max_bandwidth=1 << 20)
    machine.command("migrate", uri="exec:cat >/dev/null")
    with pytest.raises(HostError, match="a migration goes on"):
        DirtyRate(qmp).start(1)
    assert read_facts(qmp).is_migrating
    assert DirtyRate(qmp).status() == "unstarted"
    machine.command("migrate_cancel")
    machine.wait_for("the cancelling", lambda: not read_facts(qmp).is_migrating)
    rate = DirtyRate(qmp)
    rate.start(1)
    rate.wait()
    assert machine.migrate(Parameters(), until_sync=2).ram.dirty_sync_count >= 2


def test_a_dirty_ring_is_named(tmp_path: Path) -> None:
    accel = "kvm,dirty-ring-size=1024"
    with Pipe() as pipe, Logged(tmp_path / "vm", pipe.theirs, accel=accel) as qemu:
        with pytest.raises(HostError, match=r"this VM's dirty log is a ring \(dirty-ring-size\)"):
            DirtyRate(qemu.qmp).start(1)
        assert DirtyRate(qemu.qmp).status() == "unstarted"


def test_an_error_of_a_real_qemu(qmp: Qmp) -> None:
    with pytest.raises(CommandError, match="query-nonsense: QEMU refuses: ") as caught:
        qmp.execute("query-nonsense")
    assert caught.value.error_class == "CommandNotFound"
    assert qmp.execute("query-status")


def test_a_qemu_that_ends_is_one_line(machine: Machine, qmp: Qmp) -> None:
    machine.command("quit")
    machine.wait_for("its end", lambda: not machine.is_alive())
    for _ in range(2):
        with pytest.raises(HostError) as caught:
            read_facts(qmp)
        assert "\n" not in str(caught.value)
        assert str(machine.second_socket) in str(caught.value)


def test_a_socket_that_serves_another_client_is_busy(machine: Machine, qmp: Qmp) -> None:
    with pytest.raises(HostError, match="is another connected"):
        Qmp(machine.second_socket, patience_s=0.3)
    assert qmp.execute("query-status")
