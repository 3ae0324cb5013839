"""Streams that a real QEMU saved, of guests that run: every byte, every count, every page."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from qemu.qmp import QMPError

from kvmenc.plan import Parameters
from kvmenc.plan.result import QueryMigrate
from kvmenc.stream import StreamReader, rebuild, summarize
from tests.cli.test_root import kvmenc
from tests.qemu.guest import PAGE, REGION_PAGES, Guest, Writer
from tests.qemu.machine import Machine
from tests.qemu.setup import PROGRAM, Setup
from tests.support import need, need_kvm

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.plan import Profile
    from kvmenc.stream import StreamReport

pytestmark = pytest.mark.qemu

CAPPED = Parameters(max_bandwidth_bytes_per_s=32 * 2**20, downtime_limit_ms=30)
#: No pause is short enough before pages were sent a third time, which xbzrle needs.
STRICT = Parameters(max_bandwidth_bytes_per_s=32 * 2**20, downtime_limit_ms=10)
BUSY = Guest(REGION_PAGES // 3, 3, writer=Writer(4032, 40, 10))
#: The BIOS shows itself there, over RAM.
BIOS_PAGES = slice(0xF0, 0x100)


@pytest.fixture(autouse=True)
def _qemu_is_here() -> None:
    need(shutil.which(PROGRAM) is not None, f"{PROGRAM} is not installed", "KVMENC_REQUIRE_KVM")
    need_kvm()


def check_ram(stream: Path, memory: Path) -> None:
    """What the stream leaves at its destination is what the stopped guest has."""
    with stream.open("rb", buffering=0) as file:
        ram = rebuild(StreamReader(file, stream.name)).pages
    seen = np.fromfile(memory, np.uint8).reshape(-1, PAGE)
    expected = ram["pc.ram"].copy()
    expected[BIOS_PAGES] = ram["pc.bios"][-16:]
    assert np.flatnonzero((seen != expected).any(axis=1)).tolist() == []


def check_counts(report: StreamReport, real: QueryMigrate, profile: Profile) -> None:
    """To the page, and where QEMU counts RAM alone, to the byte."""
    assert (report.pages.normal, report.pages.zero) == (real.ram.normal, real.ram.duplicate)
    assert report.ram_bytes == real.ram.total
    sizes = report.bytes
    pages = sizes.normal + sizes.zero + sizes.xbzrle
    if profile.call_bytes == 8:
        assert real.ram.transferred == pages + 8 * (report.calls - 1)
    # A sync that left no trace is none of ours, and none of ours was not made.
    assert 2 <= report.rounds_total <= real.ram.dirty_sync_count
    assert [it.stopped for it in report.rounds] == [False] * (report.rounds_total - 1) + [True]


@pytest.mark.parametrize(
    ("guest", "board", "xbzrle"),
    [
        pytest.param(BUSY, "pc", False, id="busy"),
        pytest.param(BUSY, "pc", True, id="xbzrle"),
        pytest.param(Guest(100), "q35", False, id="halted-q35"),
    ],
)
def test_a_saved_stream_is_read_to_its_last_byte(
    tmp_path: Path, guest: Guest, board: str, xbzrle: bool
) -> None:
    stream, memory = tmp_path / "guest.stream", tmp_path / "memory"
    devices = Setup(extra=("-device", "virtio-rng-pci", "-smp", "2") if board == "q35" else ())
    with Machine(tmp_path / "vm", guest, board, devices) as qemu:
        state = {"capability": "xbzrle", "state": xbzrle}
        qemu.command("migrate-set-capabilities", capabilities=[state])
        qemu.save(stream, STRICT if xbzrle else CAPPED)
        answer: Any = qemu.command("query-migrate")
        profile = qemu.profile
        qemu.dump(memory)
    report = summarize(stream)
    assert report.bytes_total == stream.stat().st_size
    assert (report.why_unread, report.bytes.unread) == ("", 0)
    assert len(report.devices) > 20
    assert report.machine.startswith("pc-q35" if board == "q35" else "pc-i440fx")
    check_counts(report, msgspec.convert(answer, QueryMigrate), profile)
    check_ram(stream, memory)
    # QEMU counts a page that did not change as encoded, and sends nothing.
    encoded = answer["xbzrle-cache"]["pages"] if xbzrle else 0
    assert report.pages.xbzrle <= encoded
    assert (report.pages.xbzrle > 0) == xbzrle
    if guest.writer:
        assert report.rounds_total > 2
        assert report.passes > 1
        run = kvmenc("stream", str(stream), "--json")
        assert json.loads(run.stdout)["pages"] == msgspec.to_builtins(report.pages)


def test_a_background_snapshot_is_read_to_its_last_byte(tmp_path: Path) -> None:
    """It has no end of RAM, and pages that are about to be written come first."""
    stream = tmp_path / "guest.stream"
    with Machine(tmp_path / "vm", BUSY) as qemu:
        state = {"capability": "background-snapshot", "state": True}
        try:
            qemu.command("migrate-set-capabilities", capabilities=[state])
        except QMPError as error:
            pytest.skip(f"no background snapshots here: {error}")
        qemu.save(stream, CAPPED)
        real = msgspec.convert(qemu.command("query-migrate"), QueryMigrate)
    report = summarize(stream)
    assert (report.why_unread, report.bytes_total) == ("", stream.stat().st_size)
    assert (report.pages.normal, report.pages.zero) == (real.ram.normal, real.ram.duplicate)
    assert ([it.stopped for it in report.rounds], report.passes) == ([False], 1)
