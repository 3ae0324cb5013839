"""What a page costs on the wire, and how long the bulk stage takes, against a real QEMU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from kvmenc.plan import Parameters, make_plan
from tests.qemu.guest import REGION_PAGES, Guest
from tests.qemu.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.plan.result import QueryMigrate

pytestmark = pytest.mark.qemu

UNCAPPED = Parameters(max_bandwidth_bytes_per_s=1e12)
CAPPED = Parameters(max_bandwidth_bytes_per_s=32 * 2**20, link_bytes_per_s=1e9)
#: QEMU ends each call to send pages with RAM_SAVE_FLAG_EOS, and counts it as RAM.
END_OF_SLICE_BYTES = 8
#: In the stream, not counted as RAM: a slice's section header (type, id) and footer (type, id).
SLICE_FRAME_BYTES = (1 + 4) + (1 + 4)

GUESTS = [
    pytest.param(Guest(REGION_PAGES // 3, 3), id="every third page filled"),
    pytest.param(Guest(100), id="100 pages filled"),
    pytest.param(Guest(REGION_PAGES), id="all filled"),
]


def slices_of(real: QueryMigrate, planned: QueryMigrate) -> int:
    """How many calls QEMU sent the pages in: all that the plan does not count."""
    slices, rest = divmod(real.ram.transferred - planned.ram.transferred, END_OF_SLICE_BYTES)
    assert rest == 0
    assert slices > 0
    return slices


@pytest.mark.parametrize("guest", GUESTS)
def test_pages_and_bytes_are_as_planned(tmp_path: Path, guest: Guest) -> None:
    """To the page; to the byte but for 8 at the end of each slice of at least 50 ms."""
    with Machine(tmp_path / "vm", guest) as qemu:
        planned = make_plan(qemu.capture(), UNCAPPED).query_migrate
        real = qemu.migrate(UNCAPPED)
    assert (real.ram.normal, real.ram.duplicate) == (planned.ram.normal, planned.ram.duplicate)
    assert real.ram.total == planned.ram.total
    assert slices_of(real, planned) <= 1 + real.total_time / 50


def stream_beyond_ram(folder: Path, guest: Guest, parameters: Parameters) -> int:
    """Bytes in a saved stream that are neither pages nor a slice's frame."""
    with Machine(folder, guest) as qemu:
        saved = folder / "saved"
        planned = make_plan(qemu.capture(), parameters).query_migrate
        real = qemu.migrate(parameters, f"cat >{saved}.part && mv {saved}.part {saved}")
        qemu.wait_for("the whole stream", saved.exists)
    frames = slices_of(real, planned) * (END_OF_SLICE_BYTES + SLICE_FRAME_BYTES)
    return saved.stat().st_size - planned.ram.transferred - frames


def test_a_saved_stream_is_as_much_longer_than_planned_for_any_ram(tmp_path: Path) -> None:
    """What remains is headers and device state, some 40 kB, however many pages and slices."""
    short = stream_beyond_ram(tmp_path / "short", Guest(100), UNCAPPED)
    long = stream_beyond_ram(tmp_path / "long", Guest(REGION_PAGES // 3, 3), CAPPED)
    assert short == long
    assert 0 < short < 100_000


def test_the_bulk_takes_as_long_as_planned_at_a_cap(tmp_path: Path) -> None:
    """Best of three: a busy machine only makes it longer."""
    with Machine(tmp_path / "vm", Guest(REGION_PAGES)) as qemu:
        plan = make_plan(qemu.capture(), CAPPED)
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
        planned = msgspec.to_builtins(make_plan(qemu.capture(), UNCAPPED).query_migrate)
        qemu.migrate(UNCAPPED)
        real = msgspec.convert(qemu.command("query-migrate"), dict[str, object])
    assert planned.keys() == real.keys()
    ram = msgspec.convert(real["ram"], dict[str, float])
    assert ram.pop("skipped", 0) == 0  # in old versions only
    assert planned["ram"].keys() == ram.keys()
