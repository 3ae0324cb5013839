from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.plan import QEMU_10_0, Parameters
from kvmenc.plan import precopy as precopy_module
from kvmenc.plan.overheads import Overheads
from kvmenc.plan.whatif import WhatIf
from tests.plan.guests import GIB_PAGES, captures, guest

if TYPE_CHECKING:
    from kvmenc.capture import Capture
    from kvmenc.plan.precopy import Outcome

IDLE = [(1000.0, 0, 0)]
#: A hot set of 390 private pages, of which 350 are written in any second.
AMD_STORY = guest(
    GIB_PAGES // 4,
    GIB_PAGES // 4,
    [(100, 60, 0), (300, 160, 0), (1000, 350, 0), (2000, 390, 0), (3000, 390, 0)],
)
PARAMETERS = st.builds(
    Parameters,
    max_bandwidth_bytes_per_s=st.floats(1e6, 1e10),
    downtime_limit_ms=st.sampled_from([50.0, 300.0, 1000.0]),
    time_limit_ms=st.sampled_from([None, 600e3]),
    private_rate_pps=st.sampled_from([400.0, 20e3, 1e6]),
)


def migrate(capture: Capture, parameters: Parameters) -> Outcome:
    return WhatIf(capture).outcome(parameters)


def bulk_ms(capture: Capture, parameters: Parameters) -> float:
    """Every page sent once, page after page."""
    total = 0.0
    for block in capture.blocks:
        zero = block.zero_pages or 0
        normal = block.npages - block.private_pages - zero
        wire = normal * 4104 + zero * 9 + block.private_pages * 4168
        total += block.private_pages / parameters.private_rate_pps
        total += wire / parameters.link
    return total * 1000


@pytest.mark.parametrize("private", [0, GIB_PAGES // 2, GIB_PAGES])
@pytest.mark.parametrize("rate_pps", [400, 100_000])
def test_an_idle_guest_takes_the_time_of_sending_every_page_once(
    private: int, rate_pps: float
) -> None:
    capture = guest(GIB_PAGES, private, IDLE, zero=(GIB_PAGES - private) // 3)
    parameters = Parameters(private_rate_pps=rate_pps)
    outcome = migrate(capture, parameters)
    assert outcome.end == "completed"
    # Two syncs, and at most one window of waiting.
    assert outcome.total_ms == pytest.approx(bulk_ms(capture, parameters), abs=102)
    assert sum(one.sent.normal for one in outcome.rounds) == pytest.approx(
        capture.npages - private - (capture.npages - private) // 3
    )


def test_even_an_idle_guest_is_paused_for_what_is_below_the_threshold() -> None:
    """QEMU stops the guest as soon as the rest fits, not when all is sent."""
    outcome = migrate(guest(GIB_PAGES, 0, IDLE), Parameters())
    assert outcome.downtime_ms is not None
    assert 200 < outcome.downtime_ms < 300


def test_the_cap_bounds_the_live_rounds_and_the_link_the_stopped_one() -> None:
    capped = migrate(
        guest(GIB_PAGES, 0, IDLE),
        Parameters(max_bandwidth_bytes_per_s=100e6, link_bytes_per_s=1e9),
    )
    *live, stopped = capped.rounds
    sent = sum(one.sent.normal for one in live) * 4104
    # QEMU 10.0 notes that the limit is reached when its buffer was sent, of some 128 KiB.
    assert 100e3 < sent / sum(one.ms for one in live) < 100e3 + 132e3 / 100
    assert stopped.stopped
    overheads = Overheads.of(guest(GIB_PAGES, 0, IDLE))
    sending_ms = stopped.ms - overheads.sync_ms - overheads.devices_ms
    assert stopped.sent.normal * 4104 / sending_ms == pytest.approx(1e6)


def test_firmware_and_network_are_in_series() -> None:
    capture = guest(GIB_PAGES, GIB_PAGES, IDLE)
    outcome = migrate(capture, Parameters(max_bandwidth_bytes_per_s=4168e3, private_rate_pps=1000))
    assert outcome.total_ms == pytest.approx(GIB_PAGES * (1 + 1), rel=0.001)


def test_slow_firmware_lowers_the_threshold() -> None:
    outcome = migrate(AMD_STORY, Parameters(max_bandwidth_bytes_per_s=1e9))
    assert outcome.counters.threshold_bytes / 300 == pytest.approx(400 * 4168 / 1000, rel=0.01)


@pytest.mark.parametrize(("limit_ms", "end"), [(300, "no-progress"), (1000, "completed")])
def test_the_amd_story(limit_ms: float, end: str) -> None:
    """At 400 pages/s a 300 ms pause allows 120 pages, fewer than the guest keeps dirty.

    "migration: for SEV live migration bump downtime limit to 1s", AMDESE/qemu 119bb3f02c.
    """
    parameters = Parameters(max_bandwidth_bytes_per_s=1e9, downtime_limit_ms=limit_ms)
    outcome = migrate(AMD_STORY, parameters)
    assert outcome.end == end
    allowed_pages = outcome.counters.threshold_bytes / 4096
    assert allowed_pages == pytest.approx(400 * limit_ms / 1000, rel=0.05)


def test_dirtying_as_fast_as_the_firmware_sends_never_converges() -> None:
    capture = guest(GIB_PAGES, GIB_PAGES, [(1000, 400, 0)])
    for limit_ms in (300.0, 1000.0):
        outcome = migrate(capture, Parameters(1e9, downtime_limit_ms=limit_ms))
        assert outcome.end == "no-progress"


@pytest.mark.parametrize("hot_pages", [5_000, 9_000])
def test_a_hot_set_that_fits_into_the_pause_converges(hot_pages: int) -> None:
    capture = guest(GIB_PAGES, 0, [(10, 0, hot_pages), (1000, 0, hot_pages)])
    outcome = migrate(capture, Parameters())  # allows 9,830 pages
    assert outcome.end == "completed"
    assert hot_pages * 0.9 < outcome.rounds[-1].dirty_pages < 9_830


def test_a_hot_set_that_does_not_fit_never_converges_and_is_found_out_early() -> None:
    capture = guest(GIB_PAGES, 0, [(10, 0, 10_500), (1000, 0, 10_500)])
    outcome = migrate(capture, Parameters())
    assert outcome.end == "no-progress"
    assert outcome.pending_bytes == pytest.approx(10_500 * 4096, rel=0.01)
    assert outcome.total_ms < 2 * bulk_ms(capture, Parameters())


def test_near_the_end_every_slice_is_followed_by_a_sync() -> None:
    """A round is no full drain: a rule that sends all before it looks counts far fewer."""
    capture = guest(4 * GIB_PAGES, 0, [(1000, 0, 32_000)])
    outcome = migrate(capture, Parameters())
    assert outcome.end == "completed"
    assert outcome.counters.sync_count > 100
    last = outcome.rounds[-20:-1]
    assert max(one.ms for one in last) < 2 * QEMU_10_0.window_ms
    assert all(sum(one.sent) < one.dirty_pages for one in last)


def test_a_guest_smaller_than_one_window_ends_with_no_sync_but_the_last() -> None:
    outcome = migrate(guest(100, 0, IDLE), Parameters())
    assert outcome.end == "completed"
    assert outcome.counters.sync_count == 2
    assert outcome.counters.threshold_bytes == 0


def test_the_time_limit_ends_it() -> None:
    outcome = migrate(guest(GIB_PAGES, 0, IDLE), Parameters(time_limit_ms=1000))
    assert outcome.end == "time-limit"
    assert outcome.total_ms == pytest.approx(1000, abs=100)


@pytest.mark.parametrize("npages", [1, 2**40])
@pytest.mark.parametrize("bandwidth", [1.0, 1e13])
@pytest.mark.parametrize("limit_ms", [1e-3, 2e6])
@pytest.mark.parametrize("rate_pps", [1e-3, 1e9])
def test_it_ends_whatever_the_parameters(
    npages: int, bandwidth: float, limit_ms: float, rate_pps: float
) -> None:
    capture = guest(npages, npages // 2, [(100, npages // 100, npages // 50)])
    parameters = Parameters(bandwidth, downtime_limit_ms=limit_ms, private_rate_pps=rate_pps)
    outcome = migrate(capture, parameters)
    assert outcome.counters.sync_count <= 10_001


@settings(deadline=None, max_examples=60)
@given(capture=captures(), parameters=PARAMETERS)
def test_rounds_add_up_and_never_send_what_is_not_dirty(
    capture: Capture, parameters: Parameters
) -> None:
    outcome = migrate(capture, parameters)
    sending_ms = outcome.total_ms - outcome.setup_ms
    assert sum(one.ms for one in outcome.rounds) == pytest.approx(sending_ms)
    assert sum(outcome.rounds[0].sent) <= capture.npages * (1 + 1e-9)
    for one in outcome.rounds:
        assert sum(one.sent) <= one.dirty_pages * (1 + 1e-9) + 1e-6
        assert one.private_pages <= one.dirty_pages * (1 + 1e-9)
    assert [one.stopped for one in outcome.rounds[:-1]].count(True) == 0
    assert outcome.rounds[-1].stopped == (outcome.end == "completed")


@settings(deadline=None, max_examples=60)
@given(capture=captures(), parameters=PARAMETERS, factor=st.sampled_from([2, 10]))
def test_a_much_faster_way_is_never_worse(
    capture: Capture, parameters: Parameters, factor: float
) -> None:
    """But for the grain of a window: where exactly a sync falls is luck."""
    faster = dataclasses.replace(
        parameters,
        max_bandwidth_bytes_per_s=parameters.max_bandwidth_bytes_per_s * factor,
        private_rate_pps=parameters.private_rate_pps * factor,
    )
    slow, fast = migrate(capture, parameters), migrate(capture, faster)
    if slow.end == "completed":
        assert fast.end == "completed"
        assert fast.total_ms <= slow.total_ms * 1.1 + 100


@pytest.mark.parametrize("bandwidth", [20e6, 330e6, 2.5e9])
@pytest.mark.parametrize("rate_pps", [400, 30_000])
@pytest.mark.parametrize(
    "capture",
    [
        guest(GIB_PAGES, 0, [(50, 0, 2_000), (1000, 0, 9_000)], zero=100_000),
        guest(GIB_PAGES, 20_000, [(100, 300, 2_000), (900, 700, 9_500)]),
        guest(8 * GIB_PAGES, 4_000, [(100, 30, 700_000)], zero=GIB_PAGES),
        AMD_STORY,
    ],
)
def test_skipping_windows_changes_nothing(
    capture: Capture, rate_pps: float, bandwidth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick way and slice after slice make the same decisions at the same time."""
    parameters = Parameters(bandwidth, time_limit_ms=30e3, private_rate_pps=rate_pps)
    quick = migrate(capture, parameters)
    monkeypatch.setattr(precopy_module.Precopy, "_skip_windows", lambda *_: None)
    slow = migrate(capture, parameters)
    assert quick.end == slow.end
    assert quick.total_ms == pytest.approx(slow.total_ms)
    assert quick.pending_bytes == pytest.approx(slow.pending_bytes)
    assert [one.ms for one in quick.rounds] == pytest.approx([one.ms for one in slow.rounds])
