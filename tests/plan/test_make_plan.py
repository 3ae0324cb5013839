from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.capture import BlockFacts
from kvmenc.errors import InputError
from kvmenc.plan import Parameters, Xbzrle, make_plan
from kvmenc.plan.described import Described
from kvmenc.plan.parameters import _POSITIVE
from kvmenc.plan.result import Counts
from tests.plan.guests import GIB_PAGES, capture_of, captures, changed, guest
from tests.plan.test_precopy import AMD_STORY, IDLE, PARAMETERS

if TYPE_CHECKING:
    from kvmenc.capture import Capture
    from kvmenc.plan import Plan


def all_counts(plan: Plan, field: str) -> Counts:
    """Added up over the rounds, one by one."""
    normal = zero = encrypted = 0
    for one in plan.rounds:
        counts = getattr(one, field)
        normal, zero, encrypted = (
            normal + counts.normal,
            zero + counts.zero,
            encrypted + counts.encrypted,
        )
    return Counts(normal, zero, encrypted)


@settings(deadline=None, max_examples=60)
@given(capture=captures(), parameters=PARAMETERS)
def test_pages_bytes_and_time_add_up(capture: Capture, parameters: Parameters) -> None:
    plan = make_plan(capture, parameters)
    ram = plan.query_migrate.ram
    assert plan.totals.pages == all_counts(plan, "pages")
    assert plan.totals.bytes == all_counts(plan, "bytes")
    names = sum(1 + len(block.name) for block in capture.blocks)
    pages = plan.totals.pages
    by_hand = pages.normal * 4104 + pages.zero * 9 + pages.encrypted * 4168 + names
    assert plan.totals.bytes.total == by_hand
    # Each call to send pages ends with 18 bytes of its own.
    assert (ram.transferred - by_hand) % 18 == 0
    assert ram.precopy_bytes + ram.downtime_bytes == ram.transferred
    assert ram.normal == pages.normal + pages.encrypted
    assert ram.duplicate == pages.zero
    spent = sum(one.ms for one in plan.rounds if one.pages.total)
    assert sum(msgspec.structs.astuple(plan.totals.ms)) == pytest.approx(spent, rel=0.01, abs=5)


@settings(deadline=None, max_examples=40)
@given(capture=captures(), parameters=PARAMETERS)
def test_verdict_and_numbers_agree(capture: Capture, parameters: Parameters) -> None:
    plan = make_plan(capture, parameters)
    status = plan.query_migrate
    if plan.verdict == "converges":
        assert plan.total_time_ms is not None
        assert plan.downtime_ms is not None
        assert status.status == "completed"
        assert status.total_time == round(plan.total_time_ms)
        assert status.downtime == round(plan.downtime_ms)
        assert status.ram.remaining == 0
        assert plan.total_time_ms <= (parameters.time_limit_ms or plan.total_time_ms)
        assert plan.totals.pages.total >= capture.npages
    else:
        assert plan.total_time_ms is plan.downtime_ms is None
    assert plan.reason.isprintable()


@given(capture=captures())
@settings(deadline=None, max_examples=20)
def test_a_plan_survives_json(capture: Capture) -> None:
    plan = make_plan(capture, Parameters())
    assert msgspec.json.decode(msgspec.json.encode(plan), type=type(plan)) == plan


def test_the_contract_of_the_json_object() -> None:
    capture = guest(GIB_PAGES, GIB_PAGES // 2, [(100, 50, 500)], zero=1000)
    plan = msgspec.to_builtins(make_plan(capture, Parameters(private_rate_pps=1e5)))
    assert plan["schema"] == "kvmenc.plan/1"
    assert plan["verdict"] == "converges"
    assert plan["rounds"][0].keys() >= {"ms", "dirty_pages", "private_pages", "bytes"}
    assert plan["rounds"][0]["bytes"].keys() == {"normal", "zero", "encrypted"}
    assert plan["rounds"][0]["dirty_pages"] == GIB_PAGES
    assert plan["rounds"][0]["private_pages"] == GIB_PAGES // 2
    assert plan["totals"]["pages"]["zero"] == 1000
    assert plan["inputs"]["private_rate_pps"] == 1e5
    assert plan["query_migrate"]["ram"]["dirty-sync-count"] == len(plan["rounds"]) + 1
    assert "expected-downtime" not in plan["query_migrate"]


def test_a_migration_under_way_has_expectations_and_no_downtime() -> None:
    plan = make_plan(AMD_STORY, Parameters(max_bandwidth_bytes_per_s=1e9))
    status = msgspec.to_builtins(plan.query_migrate)
    assert status["status"] == "active"
    assert status["expected-downtime"] > 300
    assert "downtime" not in status
    assert status["ram"]["remaining"] > 0
    assert 350 < status["ram"]["dirty-pages-rate"] < 450


def test_slow_firmware_is_named_as_the_bottleneck() -> None:
    plan = make_plan(AMD_STORY, Parameters(max_bandwidth_bytes_per_s=1e9))
    assert plan.verdict == "does-not-converge"
    assert plan.totals.bottleneck == "firmware"
    assert plan.rounds[0].bottleneck == "firmware"
    assert "the firmware, at 400 pages/s, is the bottleneck" in plan.reason


@pytest.mark.parametrize(
    ("capture", "parameters", "reason"),
    [
        (guest(GIB_PAGES, 0, IDLE), Parameters(), "was left to send, within the 38.7 MiB that a"),
        (
            guest(GIB_PAGES // 256, 0, IDLE),
            Parameters(),
            "nothing was left to send before QEMU had measured a bandwidth, so the limit of 300 ms",
        ),
        (
            Described(memory_bytes=2**30, zero_share=1.0).capture(),
            Parameters(),
            "nothing was left to send; a pause of 300 ms would have allowed 3.68 MiB",
        ),
        (
            guest(GIB_PAGES, 0, IDLE),
            Parameters(time_limit_ms=500),
            "there is still 960 MiB to send",
        ),
        (AMD_STORY, Parameters(1e9), "no sync leaves less than 834 KiB to send, over the 490 KiB"),
        (AMD_STORY, Parameters(1e9, downtime_limit_ms=1e3), "QEMU only estimates that limit"),
    ],
)
def test_the_reason_says_what_decided(
    capture: Capture, parameters: Parameters, reason: str
) -> None:
    assert reason in make_plan(capture, parameters).reason


def test_finishing_after_the_time_limit_is_not_converging() -> None:
    capture = guest(GIB_PAGES, 0, IDLE)
    total = make_plan(capture, Parameters()).total_time_ms
    assert total is not None
    plan = make_plan(capture, Parameters(time_limit_ms=total - 50))
    assert plan.verdict == "does-not-converge"
    assert plan.reason == "it would end only after the time limit of 7.98 s"


@pytest.mark.parametrize(
    ("capture", "assumed"),
    [
        (guest(100, 10, IDLE), "Zero pages were not looked for: every shared page is sent as"),
        (guest(100, 10, IDLE), "400 pages/s (AMD, 350 to 450: AMDESE/qemu commit 119bb3f02c)"),
        (guest(100, 10, IDLE), "The curve holds what vCPUs write; what devices write is not in"),
        (guest(100, 10, IDLE), "Private or shared is from: a test."),
        (
            guest(100, 10, IDLE),
            "The rules are those of qemu-10.0, compared with real runs of 10.0.",
        ),
        (
            capture_of([BlockFacts("rom", 2000, 0, 0, 1500)], IDLE),
            "1,500 pages have no dirty log: sent once, and taken to stay clean.",
        ),
    ],
)
def test_what_a_plan_rests_on_is_said(capture: Capture, assumed: str) -> None:
    assert assumed in " ".join(make_plan(capture, Parameters()).assumptions)


def test_what_does_not_apply_is_not_said() -> None:
    plan = make_plan(guest(100, 0, IDLE, zero=0), Parameters())
    said = " ".join(plan.assumptions)
    assert "firmware" not in said
    assert "Zero pages" not in said
    assert "no dirty log" not in said


@given(bad=st.sampled_from([0.0, -1.0, float("nan"), float("inf")]), data=st.data())
def test_a_parameter_that_is_not_positive_is_refused_by_name(
    bad: float, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(_POSITIVE))
    with pytest.raises(InputError, match=f"{name} must be more than 0, got"):
        changed(Parameters(), name, bad)


@pytest.mark.parametrize("name", ["send_buffer_bytes", "multifd_channels"])
def test_what_may_be_0_may_not_be_less(name: str) -> None:
    with pytest.raises(InputError, match=f"{name} must be 0 or more, got -1"):
        changed(Parameters(), name, -1)


def test_what_qemu_does_not_take_together_is_refused() -> None:
    with pytest.raises(InputError, match="xbzrle and multifd"):
        Parameters(xbzrle=Xbzrle(0.5), multifd_channels=2)


def test_nobody_has_written_postcopy_for_private_pages() -> None:
    with pytest.raises(InputError, match="postcopy cannot take private pages"):
        make_plan(guest(100, 10, IDLE), Parameters(postcopy=True))


def test_a_downtime_limit_that_qemu_refuses_is_refused() -> None:
    with pytest.raises(InputError, match=r"QEMU allows at most 2000 s"):
        Parameters(downtime_limit_ms=2001e3)
