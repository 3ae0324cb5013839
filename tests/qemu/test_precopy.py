"""Migrations of running guests: planned from what the guests are known to do, then made.

In six runs of each on a quiet machine the total time was within 2 % of the plan, the pages sent
again within 8 %, the syncs as planned or one fewer. A busy machine keeps QEMU and the guest
waiting, which no plan can know: so the tolerances are wider, and of three runs one must fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kvmenc.plan import Parameters, make_plan
from tests.qemu.guest import REGION_PAGES, Guest, Writer
from tests.qemu.machine import Machine

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kvmenc.plan import Plan
    from kvmenc.plan.result import QueryMigrate

    #: By field of query-migrate: what it was, and what was planned.
    Misfits = dict[str, tuple[object, object]]

pytestmark = [pytest.mark.qemu, pytest.mark.alone]

CAP_BYTES_PER_S = 32 * 2**20
WINDOW_BYTES = CAP_BYTES_PER_S // 10


def parameters(downtime_limit_ms: float, time_limit_ms: float | None = None) -> Parameters:
    """The stopped round goes as fast as a pipe."""
    return Parameters(
        max_bandwidth_bytes_per_s=CAP_BYTES_PER_S,
        link_bytes_per_s=1e9,
        downtime_limit_ms=downtime_limit_ms,
        time_limit_ms=time_limit_ms,
    )


def misfits(real: QueryMigrate, plan: Plan) -> Misfits:
    near, planned = pytest.approx, plan.query_migrate
    once = plan.guest.pages - (plan.guest.zero_pages or 0)
    pairs = {
        "total-time": (real.total_time - real.setup_time, near(planned.total_time, rel=0.12)),
        "dirty-sync-count": (real.ram.dirty_sync_count, near(planned.ram.dirty_sync_count, abs=1)),
        "normal, again": (real.ram.normal - once, near(planned.ram.normal - once, rel=0.2)),
        "downtime-bytes": (real.ram.downtime_bytes, near(planned.ram.downtime_bytes, rel=0.25)),
        "remaining": (real.ram.remaining, near(planned.ram.remaining, abs=WINDOW_BYTES)),
    }
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def one_of_three_fits(migrate: Callable[[], Misfits]) -> None:
    runs = []
    for _ in range(3):
        runs.append(migrate())
        if not runs[-1]:
            return
    pytest.fail(f"no run was as planned: {runs}")


@pytest.mark.parametrize(
    ("writer", "downtime_limit_ms", "syncs"),
    [
        pytest.param(Writer(1008, 1008, 20), 260, 4, id="hot set below the threshold"),
        pytest.param(Writer(4032, 40, 10), 350, 5, id="4000 pages a second"),
        pytest.param(Writer(5376, 50, 10), 300, 8, id="5000 pages a second"),
    ],
)
def test_a_guest_converges_as_planned(
    tmp_path: Path, writer: Writer, downtime_limit_ms: float, syncs: int
) -> None:
    """The downtime limits lie in the middle of ranges that all give the same number of syncs."""
    limits = parameters(downtime_limit_ms)
    with Machine(tmp_path / "vm", Guest(REGION_PAGES, writer=writer)) as qemu:
        plan = make_plan(qemu.capture(), limits, qemu.profile)
        assert plan.verdict == "converges"
        assert plan.query_migrate.ram.dirty_sync_count == syncs

        def migrate() -> Misfits:
            real = qemu.migrate(limits)
            qemu.command("cont")
            return misfits(real, plan)

        one_of_three_fits(migrate)


def test_a_guest_does_not_converge_as_planned(tmp_path: Path) -> None:
    """A hot set of 4032 pages; the threshold is 2784. Compared when the real one is given up."""
    limit_ms = 340
    with Machine(tmp_path / "vm", Guest(REGION_PAGES, writer=Writer(4032, 4032, 40))) as qemu:
        capture = qemu.capture()
        assert make_plan(capture, parameters(limit_ms), qemu.profile).verdict == "does-not-converge"

        def migrate() -> Misfits:
            real = qemu.migrate(parameters(limit_ms), until_sync=8)
            assert real.status == "active"
            until_then = parameters(limit_ms, real.total_time - real.setup_time)
            return misfits(real, make_plan(capture, until_then, qemu.profile))

        one_of_three_fits(migrate)
