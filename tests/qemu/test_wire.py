"""What a page costs on the wire, and how long the bulk stage takes, against a real QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from kvmenc.plan import Parameters, make_plan
from tests.qemu.guest import PAGE, REGION_PAGES, Guest
from tests.qemu.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.capture import Capture
    from kvmenc.plan import Profile
    from kvmenc.plan.result import QueryMigrate

pytestmark = [pytest.mark.qemu, pytest.mark.alone]

UNCAPPED = Parameters(max_bandwidth_bytes_per_s=1e12)
CAPPED = Parameters(max_bandwidth_bytes_per_s=32 * 2**20, link_bytes_per_s=1e9)
#: In the stream: what a call to send pages adds: a section header (type, id), RAM_SAVE_FLAG_EOS and
#: a section footer (type, id). Old versions count only the flag as RAM.
CALL_BYTES = (1 + 4) + 8 + (1 + 4)

GUESTS = [
    pytest.param(Guest(REGION_PAGES // 3, 3), id="every third page filled"),
    pytest.param(Guest(100), id="100 pages filled"),
    pytest.param(Guest(REGION_PAGES), id="all filled"),
]


def calls_of(real: QueryMigrate, capture: Capture, profile: Profile) -> int:
    """How many calls QEMU sent the pages in, each of them once: all else of what it counts."""
    if profile.call_bytes == CALL_BYTES:
        pytest.skip("since 8.2 QEMU counts all that it sends as RAM, device state as well")
    pages = (8 + PAGE) * real.ram.normal + (8 + 1) * real.ram.duplicate
    names = sum(1 + len(block.name) for block in capture.blocks)
    calls, rest = divmod(real.ram.transferred - pages - names, profile.call_bytes)
    assert rest == 0
    return calls


@pytest.mark.parametrize("guest", GUESTS)
def test_pages_and_bytes_are_as_planned(tmp_path: Path, guest: Guest) -> None:
    """To the page; to the byte but for the number of calls, each of at least 50 ms."""
    with Machine(tmp_path / "vm", guest) as qemu:
        capture, profile = qemu.capture(), qemu.profile
        planned = make_plan(capture, UNCAPPED, profile).query_migrate
        real = qemu.migrate(UNCAPPED)
    assert (real.ram.normal, real.ram.duplicate) == (planned.ram.normal, planned.ram.duplicate)
    assert real.ram.total == planned.ram.total
    calls, planned_calls = (calls_of(it, capture, profile) for it in (real, planned))
    assert 0 < calls <= 2 + real.total_time / 50
    assert 0 < planned_calls <= 2 + planned.total_time / 50


def stream_beyond_ram(folder: Path, guest: Guest, parameters: Parameters) -> int:
    """Bytes in a saved stream that are neither pages nor a call's frame."""
    with Machine(folder, guest) as qemu:
        saved = folder / "saved"
        capture, profile = qemu.capture(), qemu.profile
        real = qemu.migrate(parameters, f"cat >{saved}.part && mv {saved}.part {saved}")
        qemu.wait_for("the whole stream", saved.exists)
    calls = calls_of(real, capture, profile)
    counted = real.ram.transferred - calls * profile.call_bytes
    return saved.stat().st_size - counted - calls * CALL_BYTES


def test_a_saved_stream_is_as_much_longer_than_planned_for_any_ram(tmp_path: Path) -> None:
    """What remains is headers and device state, some 40 kB, however many pages and calls."""
    short = stream_beyond_ram(tmp_path / "short", Guest(100), UNCAPPED)
    long = stream_beyond_ram(tmp_path / "long", Guest(REGION_PAGES // 3, 3), CAPPED)
    assert short == long
    assert 0 < short < 100_000


def test_the_bulk_takes_as_long_as_planned_at_a_cap(tmp_path: Path) -> None:
    """Best of three: a busy machine only makes it longer."""
    with Machine(tmp_path / "vm", Guest(REGION_PAGES)) as qemu:
        plan = make_plan(qemu.capture(), CAPPED, qemu.profile)
        real = []
        for _ in range(3):
            real.append(qemu.migrate(CAPPED))
            qemu.command("cont")
    assert plan.total_time_ms is not None
    fastest_ms = min(one.total_time - one.setup_time for one in real)
    assert fastest_ms == pytest.approx(plan.total_time_ms, rel=0.05)
    assert {one.ram.dirty_sync_count for one in real} == {plan.query_migrate.ram.dirty_sync_count}


def test_query_migrate_has_the_members_that_qemu_prints(tmp_path: Path) -> None:
    with Machine(tmp_path / "vm", Guest(100)) as qemu:
        planned = msgspec.to_builtins(
            make_plan(qemu.capture(), UNCAPPED, qemu.profile).query_migrate
        )
        qemu.migrate(UNCAPPED)
        real = msgspec.convert(qemu.command("query-migrate"), dict[str, object])
    assert planned.keys() == real.keys()
    ram = msgspec.convert(real["ram"], dict[str, float])
    assert planned["ram"].keys() == ram.keys()
    assert ram.get("skipped", 0) == 0  # in old versions only
