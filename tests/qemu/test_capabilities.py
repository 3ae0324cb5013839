"""Migrations with QEMU's capabilities beside their plans, by the rules of the QEMU at hand.

A busy machine keeps QEMU and the guest waiting, which no plan can know: so of three runs one must
fit, as in :mod:`tests.qemu.test_precopy`.
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
from qemu.qmp import ExecuteError

from kvmenc.plan import Parameters, Xbzrle, make_plan, profile_for
from kvmenc.plan.overheads import Overheads
from tests.qemu.capabilities import captured, fields, follow, listening, synced_ms
from tests.qemu.guest import PAGE, REGION_PAGES, Guest, Paced, Stream, Writer
from tests.qemu.machine import Machine
from tests.qemu.pressure import Watcher
from tests.qemu.setup import Setup
from tests.qemu.test_precopy import one_of_three_fits

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from kvmenc.capture import Capture
    from kvmenc.plan import Plan, Profile
    from tests.qemu.capabilities import Followed
    from tests.qemu.pressure import Pressure
    from tests.qemu.test_precopy import Misfits

pytestmark = [pytest.mark.qemu, pytest.mark.alone]

LINK_BYTES_PER_S = 1e9
SMALL = Setup(ram_mib=256, cpu_limit_s=120)
#: As plans count them.
PAGE_AND_HEADER = PAGE + 8
#: Of multifd: 320 bytes, and places for 128 offsets.
PACKET_BYTES = 320 + 128 * 8
#: Printed, and deliberately not planned: since 11.1, what all devices together have left.
UNPLANNED = {"/remaining"}


def misfits(**pairs: tuple[object, object]) -> Misfits:
    return {field: pair for field, pair in pairs.items() if pair[0] != pair[1]}


def near(planned: float, rel: float | None = None, abs: float | None = None) -> object:  # noqa: A002
    return pytest.approx(planned, rel=rel, abs=abs)


def assert_same_fields(
    real: Followed, capture: Capture, parameters: Parameters, profile: Profile
) -> None:
    """What query-migrate printed near the end and at it, by name, is what is planned then."""
    plan = make_plan(capture, parameters, profile)
    nearly_ms = plan.query_migrate.total_time * 0.9
    active = make_plan(capture, replace(parameters, time_limit_ms=nearly_ms), profile)
    assert active.query_migrate.status == "active"
    for answer, planned in ((real.active_at(0.9), active), (real.answers[-1], plan)):
        printed = fields(answer) - UNPLANNED
        assert printed == fields(msgspec.to_builtins(planned.query_migrate))


#: Writes as fast as the CPU counts, to pages picked at random: so it is not a matter of one round
#: more or less whether it converges.
RANDOM_PAGES = 5200
FULL_SPEED = Guest(
    RANDOM_PAGES + 100, writer=Paced((Stream(RANDOM_PAGES, 54, "random"),), 20, clock="cpu")
)


#: It sets its pace once, by a timer, and a busy machine may keep it from looking in time.
PAGES_PER_S = (1500, 6000)


def pages_per_s(capture: Capture) -> float:
    """Written, before any is written twice."""
    point = next(it for it in capture.curve if it.ms > 150)
    share = min(point.shared_pages / RANDOM_PAGES, 0.99)
    return -RANDOM_PAGES * math.log(1 - share) / point.ms * 1000


#: A CPU is so much slower or faster from one minute to the next, and this guest with it: near the
#: edge of converging that is a step of the throttle more or less.
SAME_PACE = (0.8, 1.0, 1.25)


def at_pace(capture: Capture, factor: float) -> Capture:
    """Of the same guest, if it wrote so much faster."""
    curve = tuple(msgspec.structs.replace(it, ms=it.ms / factor) for it in capture.curve)
    return msgspec.structs.replace(capture, curve=curve, windows=(), samples=())


def within(planned: list[float], rel: float) -> object:
    """From the least that is planned to the most, and a little beyond."""
    least, most = min(planned) * (1 - rel), max(planned) * (1 + rel)
    return pytest.approx((least + most) / 2, abs=(most - least) / 2)


def planned_steps(capture: Capture, parameters: Parameters, profile: Profile) -> dict[int, float]:
    """By percentage of the throttle: after how many ms a migration that is given up shows it."""
    steps: dict[int, float] = {}
    total_ms = make_plan(capture, parameters, profile).query_migrate.total_time
    for limit_ms in range(1000, total_ms, 100):
        given_up = make_plan(capture, replace(parameters, time_limit_ms=limit_ms), profile)
        pct = given_up.query_migrate.cpu_throttle_percentage
        if pct is not msgspec.UNSET:
            steps.setdefault(pct, limit_ms)
    return steps


def test_auto_converge_throttles_a_guest_as_planned(tmp_path: Path) -> None:
    """And without it that guest does not converge within the same time.

    The guest counts by its CPU, so it writes less in proportion. One that is paced by a timer and
    idles in between makes up for what it was throttled: a plan takes it to write less all the
    same, and that is a limit of the model, of which nothing is tested here.

    A vCPU that waits for a CPU counts more slowly, too: where it had to in all runs, nothing is
    shown by them.
    """
    tries = itertools.count()
    pressures: list[Pressure] = []

    def migrate() -> Misfits:
        with Machine(tmp_path / str(next(tries)), FULL_SPEED, setup=SMALL) as qemu:
            watcher, began = Watcher(qemu.pid, qemu.vcpu_tids), time.monotonic()
            wrong = captured_and_throttled(qemu)
            pressures.append(watcher.end(time.monotonic() - began))
            return wrong

    try:
        one_of_three_fits(migrate)
    except pytest.fail.Exception:
        if not all(it.is_high for it in pressures):
            raise
        pytest.skip(f"the machine is too busy: {'; '.join(map(str, pressures))}")


def captured_and_throttled(qemu: Machine) -> Misfits:
    """What did not fit with auto-converge; and, where all did, without."""
    capture, profile = captured(qemu), profile_for(qemu.version())
    pace = pages_per_s(capture)
    if not PAGES_PER_S[0] < pace < PAGES_PER_S[1]:
        return misfits(pace=(pace, PAGES_PER_S))
    limits = Parameters(
        max_bandwidth_bytes_per_s=pace / 1.5 * PAGE_AND_HEADER,
        link_bytes_per_s=LINK_BYTES_PER_S,
        downtime_limit_ms=400,
        auto_converge=True,
    )
    plans = [make_plan(at_pace(capture, factor), limits, profile) for factor in SAME_PACE]
    plan, without = plans[1], replace(limits, auto_converge=False)
    verdicts = plan.verdict, make_plan(capture, without, profile).verdict
    if wrong := misfits(verdicts=(verdicts, ("converges", "does-not-converge"))):
        return wrong
    real = follow(qemu, limits)
    qemu.command("cont")
    if wrong := throttled_misfits(real, plans, planned_steps(capture, limits, profile)):
        return wrong
    assert_same_fields(real, capture, limits, profile)
    real = follow(qemu, without, until_ms=plan.query_migrate.total_time)
    return misfits(without=(real.end.status, "active"), throttled=(real.throttled, []))


def throttled_misfits(real: Followed, plans: Sequence[Plan], steps: dict[int, float]) -> Misfits:
    """A run may end just before a step that is planned, or go on for one more.

    The more it is throttled the shorter are the rounds: near the end some more or fewer of them
    take next to no time and send next to nothing.
    """
    planned = [plan.query_migrate for plan in plans]
    happened, ram = dict(real.throttled), real.end.ram
    both = [pct for pct in steps if pct in happened]
    return misfits(
        planned=(list(steps)[:1], [20]),
        steps=([happened[pct] for pct in both], near_each([steps[pct] for pct in both])),
        how_many=(len(happened), near(len(steps), abs=1)),
        sending=(real.sending_ms, within([it.total_time - it.setup_time for it in planned], 0.15)),
        syncs=(ram.dirty_sync_count, within([it.ram.dirty_sync_count for it in planned], 0.3)),
        normal=(ram.normal, within([it.ram.normal for it in planned], 0.15)),
    )


def near_each(planned: list[float]) -> object:
    return pytest.approx(planned, rel=0.15)


#: Zero pages lie behind: of QEMU 10.0 a packet of 128 pages is smaller where some are zero, and
#: so is what a window overshoots by, which no plan follows.
FILLED = Guest(20_000)


def test_multifd_counts_packets_as_planned(tmp_path: Path) -> None:
    """To the page; bytes to 1 %: QEMU 7.2 sends the last page of most packets twice.

    It asks whether a packet is of another RAMBlock when that packet may be another thread's already
    and of none (migration/multifd.c, ``multifd_queue_page``), and does not count the page again.
    Zero pages go the old way, and are all that precopy-bytes and downtime-bytes count.
    """
    limits = Parameters(
        max_bandwidth_bytes_per_s=32 * 2**20, link_bytes_per_s=LINK_BYTES_PER_S, multifd_channels=2
    )
    with Machine(tmp_path / "vm", FILLED, setup=SMALL) as qemu:
        profile, capture = profile_for(qemu.version()), qemu.capture()
        plan = make_plan(capture, limits, profile)
        twins = itertools.count()

        def migrate() -> Misfits:
            with listening(qemu, tmp_path / f"twin-{next(twins)}", limits) as uri:
                real = follow(qemu, limits, uri)
            qemu.command("cont")
            assert_same_fields(real, capture, limits, profile)
            assert (real.end.ram.normal, real.end.ram.duplicate) == (
                plan.query_migrate.ram.normal,
                plan.query_migrate.ram.duplicate,
            )
            return multifd_misfits(real, plan)

        one_of_three_fits(migrate)


def multifd_misfits(real: Followed, plan: Plan) -> Misfits:
    planned, ram = plan.query_migrate, real.end.ram
    packets = math.ceil(ram.normal / 128)
    assert ram.multifd_bytes >= ram.normal_bytes + packets * PACKET_BYTES
    return misfits(
        multifd_bytes=(ram.multifd_bytes, near(planned.ram.multifd_bytes, rel=0.01)),
        transferred=(ram.transferred, near(planned.ram.transferred, rel=0.01)),
        main_bytes=(
            ram.precopy_bytes + ram.downtime_bytes,
            near(planned.ram.precopy_bytes + planned.ram.downtime_bytes, rel=0.01, abs=2000),
        ),
        sending=(real.sending_ms, near(planned.total_time - planned.setup_time, rel=0.15)),
        syncs=(ram.dirty_sync_count, near(planned.ram.dirty_sync_count, abs=1)),
    )


def test_multifd_overshoots_a_small_cap_as_planned(tmp_path: Path) -> None:
    """A window has room for one packet and a bit, so two are sent in it.

    Since 8.2 also what is queued, which depends on how fast the connections' threads are.
    """
    limits = Parameters(
        max_bandwidth_bytes_per_s=6e6, link_bytes_per_s=LINK_BYTES_PER_S, multifd_channels=2
    )
    with Machine(tmp_path / "vm", FILLED, setup=SMALL) as qemu:
        profile = profile_for(qemu.version())
        given_up = replace(limits, time_limit_ms=1500)
        planned = make_plan(qemu.capture(), given_up, profile).query_migrate
        assert planned.ram.mbps > 1.5 * 48
        twins = itertools.count()

        def migrate() -> Misfits:
            with listening(qemu, tmp_path / f"twin-{next(twins)}", limits) as uri:
                real = follow(qemu, limits, uri, until_ms=1500)
            windows = [it["ram"]["mbps"] for it in real.answers if it["ram"]["mbps"]]
            mbps, rel = statistics.mean(windows), 0.1 if profile.multifd_syncs_calls else 0.3
            return misfits(mbps=(mbps, near(planned.ram.mbps, rel=rel)))

        one_of_three_fits(migrate)


#: One dword of each page, of which only the last byte changes from one time to the next: a run of
#: 0 unchanged bytes and one of 1 changed, each length a byte.
DWORDS = Guest(REGION_PAGES, writer=Writer(2688, 13, 2))
ENCODED_BYTES = 3


def test_xbzrle_knows_pages_as_planned(tmp_path: Path) -> None:
    """A hot set that is too large and written too fast, until it is sent as differences.

    A page that was written between the clearing of its log and its sending counts as sent, as
    nothing: so the mean is below the size of a difference, and it is that of the run.
    """
    limits = Parameters(
        max_bandwidth_bytes_per_s=20e6,
        link_bytes_per_s=LINK_BYTES_PER_S,
        downtime_limit_ms=100,
        xbzrle=Xbzrle(ENCODED_BYTES / PAGE),
    )
    with Machine(tmp_path / "vm", DWORDS) as qemu:
        profile, capture = profile_for(qemu.version()), qemu.capture()
        without = make_plan(capture, replace(limits, xbzrle=None), profile)
        assert without.verdict == "does-not-converge"

        def migrate() -> Misfits:
            real = follow(qemu, limits)
            qemu.command("cont")
            assert_same_fields(real, capture, limits, profile)
            return xbzrle_misfits(real, capture, limits, profile)

        one_of_three_fits(migrate)


def xbzrle_misfits(
    real: Followed, capture: Capture, limits: Parameters, profile: Profile
) -> Misfits:
    cache = real.encoded
    mean = cache["bytes"] / cache["pages"]
    assert mean <= 3 + ENCODED_BYTES
    measured = replace(limits, xbzrle=Xbzrle(max(mean - 3, 0.01) / PAGE))
    plan = make_plan(capture, measured, profile)
    planned, known = plan.query_migrate, plan.query_migrate.xbzrle_cache
    assert known is not msgspec.UNSET
    once = plan.guest.pages - (plan.guest.zero_pages or 0)
    return misfits(
        pages=(cache["pages"], near(known.pages, rel=0.25)),
        bytes=(cache["bytes"], near(known.bytes, rel=0.25)),
        cache_miss=(cache["cache-miss"], near(known.cache_miss, rel=0.15)),
        normal_again=(real.end.ram.normal - once, near(planned.ram.normal - once, rel=0.15)),
        whole_at_first=(known_before_third_sync(real), 0),
        sending=(real.sending_ms, near(planned.total_time - planned.setup_time, rel=0.12)),
        syncs=(real.end.ram.dirty_sync_count, near(planned.ram.dirty_sync_count, abs=2)),
    )


def known_before_third_sync(real: Followed) -> int:
    """Pages that xbzrle knew while they were sent for the second time."""
    early = [it for it in real.answers if it["ram"]["dirty-sync-count"] <= 2]
    first, last = (early[at]["xbzrle-cache"]["pages"] for at in (0, -1))
    return int(last - first)


#: Does not converge by itself: it writes as fast as 20 MB/s carry.
ROUND_AND_ROUND = Guest(REGION_PAGES, writer=Writer(4032, 100, 20))


def test_postcopy_pauses_and_moves_what_is_left_as_planned(tmp_path: Path) -> None:
    """It is begun at the first answer after the first pass, up to a window later than planned."""
    limits = Parameters(
        max_bandwidth_bytes_per_s=20e6, link_bytes_per_s=2e8, downtime_limit_ms=50, postcopy=True
    )
    tries = itertools.count()

    def migrate() -> Misfits:
        folder = tmp_path / str(next(tries))
        folder.mkdir()
        with Machine(folder / "vm", ROUND_AND_ROUND) as qemu:
            profile, capture = profile_for(qemu.version()), qemu.capture()
            try:
                with listening(qemu, folder / "twin", limits) as uri:
                    real = follow(qemu, limits, uri)
            except ExecuteError as error:
                pytest.skip(f"no postcopy here, as without userfaultfd: {error}")
        assert_same_fields(real, capture, limits, profile)
        assert "postcopy-active" in {it["status"] for it in real.answers}
        return postcopy_misfits(real, make_plan(capture, limits, profile))

    one_of_three_fits(migrate)


def postcopy_misfits(real: Followed, plan: Plan) -> Misfits:
    planned, ram = plan.query_migrate, real.end.ram
    assert plan.downtime_ms is not None
    assert isinstance(real.end.downtime, int)
    window_bytes = plan.inputs.max_bandwidth_bytes_per_s / 10
    return misfits(
        downtime=(real.end.downtime, near(plan.downtime_ms, abs=25)),
        postcopy_bytes=(
            ram.postcopy_bytes,
            near(planned.ram.postcopy_bytes, rel=0.05, abs=1.5 * window_bytes),
        ),
        precopy_bytes=(
            ram.precopy_bytes,
            near(planned.ram.precopy_bytes, rel=0.02, abs=1.5 * window_bytes),
        ),
        transferred=(ram.transferred, near(planned.ram.transferred, rel=0.05)),
        syncs=(ram.dirty_sync_count, planned.ram.dirty_sync_count),
        sending=(real.sending_ms, near(planned.total_time - planned.setup_time, rel=0.15)),
    )


@pytest.mark.parametrize(
    ("ram_kib", "factor"),
    [
        pytest.param(256 << 10, 3, id="256 MiB"),
        pytest.param(2 << 20, 3, id="2 GiB"),
        pytest.param(
            (256 << 10) + 8,
            4,
            id="a block of an odd size",
        ),
    ],
)
def test_a_sync_takes_about_as_long_as_planned(tmp_path: Path, ram_kib: int, factor: float) -> None:
    """The median of those after setting up.

    Of a block whose size is no multiple of 64 pages QEMU asks KVM to clear each page by itself,
    also where nothing is dirty: an ioctl of 1 to 3 us.
    """
    more = ("-msg", "timestamp=on", "-m", f"{ram_kib}K")
    limits = Parameters(
        max_bandwidth_bytes_per_s=4e8, link_bytes_per_s=LINK_BYTES_PER_S, downtime_limit_ms=1
    )
    with Machine(tmp_path / "vm", Guest(1000), setup=replace(SMALL, extra=more)) as qemu:
        planned_ms = Overheads.of(qemu.capture()).sync_ms
        runs = itertools.count()

        def migrate() -> Misfits:
            log = tmp_path / f"trace-{next(runs)}"
            qemu.trace_to(log, "migration_bitmap_sync_*")
            follow(qemu, limits)
            qemu.command("cont")
            took_ms = statistics.median(synced_ms(log)[1:])
            within = planned_ms / factor <= took_ms <= planned_ms * factor
            return {} if within else {"sync": (took_ms, planned_ms)}

        one_of_three_fits(migrate)
