"""A distribution's QEMU on a real KVM with the fake laid over it: it boots, and migrates."""

from __future__ import annotations

import ctypes
import shutil
import struct
import sys
from typing import TYPE_CHECKING

import pytest

from kvmenc import uapi
from kvmenc.backend.tracee import TraceeBackend
from kvmenc.plan import Parameters
from kvmenc.qemu.facts import read_facts
from kvmenc.qemu.qmp import Qmp
from kvmenc.tracee import Injector, Target
from tests.qemu.guest import Guest, Writer
from tests.qemu.machine import Machine
from tests.qemu.setup import PROGRAM, Setup
from tests.support import need, need_kvm

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.plan.result import QueryMigrate

pytestmark = [pytest.mark.qemu, pytest.mark.alone]

PARAMETERS = Parameters(max_bandwidth_bytes_per_s=1e9, downtime_limit_ms=300)
NPAGES = 0x400


class OverSetup(Setup):
    """As Setup, by way of ``fakekvm run --over``."""

    __slots__ = ()

    @property
    def command(self) -> list[str]:
        run = [sys.executable, "-m", "fakekvm.cli", "run", "--over", "--flip-port", "0x99", "--"]
        return [*run, PROGRAM]


class Flipper(Writer):
    """Makes 16 pages from 2 MiB on shared by port 0x99, then halts."""

    def code(self, _guest: Guest) -> bytes:
        registers = struct.pack("<BI BI", 0xBB, 0x200000, 0xB9, 16)
        return registers + bytes.fromhex("31d2 e699 f4 ebfd")


GUEST = Guest(8000, writer=Flipper(pages=2016, batch=504, period_ms=20.0))


@pytest.fixture(autouse=True)
def _qemu_is_here() -> None:
    need(shutil.which(PROGRAM) is not None, f"{PROGRAM} is not installed", "KVMENC_REQUIRE_KVM")
    need_kvm()


def migrated(qemu: Machine) -> QueryMigrate:
    return qemu.migrate(PARAMETERS)


def private_words(qemu: Machine) -> bytes:
    """KVM_GET_PAGE_ENC_BITMAP, by the hand of one of QEMU's threads."""
    with Qmp(qemu.second_socket) as qmp:
        facts = read_facts(qmp)
    revision = uapi.REVISIONS["v2-2019"]
    words = (ctypes.c_uint8 * (NPAGES // 8))()
    wanted = uapi.kvm_page_enc_bitmap(start_gfn=0, num_pages=NPAGES)
    wanted.enc_bitmap = ctypes.addressof(words)
    with Injector(Target.of(facts.pid, facts.vcpu_tids)) as injector:
        backend = TraceeBackend(injector, (), revision)
        backend.ioctl(injector.target.vm_fd, revision.get, ctypes.addressof(wanted))
    return bytes(words)


def test_qemu_migrates_as_without_it_and_its_guests_flips_are_there(tmp_path: Path) -> None:
    with Machine(tmp_path / "bare", GUEST) as bare:
        expected = migrated(bare)
    with Machine(tmp_path / "over", GUEST, setup=OverSetup()) as over:
        shared = ((1 << 16) - 1) << 0x200
        private = ((1 << NPAGES) - 1 ^ shared).to_bytes(NPAGES // 8, "little")
        over.wait_for("the flips", lambda: private_words(over) == private)
        found = migrated(over)
        assert private_words(over) == private
    for of in ("normal", "duplicate", "dirty_sync_count", "transferred", "total"):
        assert getattr(found.ram, of) == getattr(expected.ram, of), of


def test_a_guest_arrives_as_it_left(tmp_path: Path) -> None:
    """Between two QEMUs, each on a KVM of its own laid over."""
    with (
        Machine(tmp_path / "from", Guest(8000), setup=OverSetup()) as here,
        Machine(tmp_path / "to", Guest(8000), setup=OverSetup(incoming=True)) as there,
    ):
        here.migrate_to(there.listen(), PARAMETERS)
        there.wait_for_arrival()
        assert here.dump(tmp_path / "a").read_bytes() == there.dump(tmp_path / "b").read_bytes()


def test_a_qemu_of_an_sev_guest_boots_where_there_is_no_sev(tmp_path: Path) -> None:
    """The position of the C-bit is this CPU's, which has none."""
    sev = "sev-guest,id=sev0,cbitpos=0,reduced-phys-bits=1"
    extra = ("-object", sev, "-M", "confidential-guest-support=sev0")
    with Machine(tmp_path / "vm", Guest(100), setup=OverSetup(extra=extra)) as qemu:
        assert "state: running" in qemu.monitor("info sev")
