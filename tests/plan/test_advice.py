from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc import cli
from kvmenc.capture import save_capture
from kvmenc.plan import Parameters, Plan, advise, make_plan
from kvmenc.plan.least import figures
from kvmenc.plan.whatif import WhatIf
from kvmenc.report.advice import advice_words
from tests.plan.guests import GIB_PAGES, captures, changed, guest
from tests.plan.test_precopy import AMD_STORY, IDLE, PARAMETERS

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.capture import Capture
    from kvmenc.plan.result import Advice, Change

FIELDS = {
    "downtime-limit": "downtime_limit_ms",
    "max-bandwidth": "max_bandwidth_bytes_per_s",
    "private-rate": "private_rate_pps",
}
#: 10,500 hot pages are over the 9,830 that the defaults allow.
TOO_HOT = guest(GIB_PAGES, 0, [(10, 0, 10_500), (1000, 0, 10_500)])
BUSY = guest(GIB_PAGES, GIB_PAGES // 4, [(100, 200, 3_000), (2000, 900, 40_000)])


def change_of(advice: Advice, knob: str) -> Change:
    return next(one for one in advice.changes if one.knob == knob)


def converges_with(capture: Capture, parameters: Parameters, knob: str, value: float) -> bool:
    if knob == "throttle":
        return WhatIf(capture).converges(parameters, 1 - value / 100)
    return make_plan(capture, changed(parameters, FIELDS[knob], value)).verdict == "converges"


@settings(deadline=None, max_examples=25)
@given(capture=captures(), parameters=PARAMETERS)
def test_what_is_advised_converges_and_a_tenth_less_does_not(
    capture: Capture, parameters: Parameters
) -> None:
    advice = advise(capture, parameters)
    verdict = make_plan(capture, parameters).verdict
    assert advice.kind == ("margin" if verdict == "converges" else "to-converge")
    for change in advice.changes:
        if change.least is None:
            continue
        assert converges_with(capture, parameters, change.knob, change.least)
        assert change.total_time_ms is not None
        if change.sure:
            less = change.least * 0.9
            assert not converges_with(capture, parameters, change.knob, less)


@pytest.mark.parametrize(("capture", "knobs"), [(TOO_HOT, 2), (AMD_STORY, 2), (BUSY, 3)])
def test_a_scan_of_every_figure_finds_the_same(capture: Capture, knobs: int) -> None:
    parameters = Parameters(private_rate_pps=2_000 if capture is BUSY else 400)
    advice = advise(capture, parameters)
    assert advice.kind == "to-converge"
    found = [one for one in advice.changes if one.knob in FIELDS and one.least is not None]
    assert len(found) >= knobs - 1
    for change in found:
        assert change.least is not None
        scanned = [
            value
            for value in figures(change.now, change.least * 1.2)
            if converges_with(capture, parameters, change.knob, value)
        ]
        assert change.least == scanned[0] or not change.sure


@pytest.mark.parametrize("pct", [5, 10, 25])
def test_a_throttle_that_suffices_is_found(pct: int) -> None:
    """A guest that writes 1 / (1 - pct) times what just converges must be throttled by pct."""
    points = [(1000.0, 0, round(31_500 / (1 - pct / 100)))]
    capture = guest(4 * GIB_PAGES, 0, points)
    least = change_of(advise(capture, Parameters()), "throttle").least
    assert least is not None
    assert least <= pct
    assert not converges_with(capture, Parameters(), "throttle", least - 1)


def test_options_are_typed_as_they_stand_and_then_it_converges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "guest.capture"
    save_capture(BUSY, path)
    rate = ["--private-rate", "2000pps"]
    result = CliRunner().invoke(cli.root, ["plan", str(path), *rate, "--json"])
    assert result.exit_code == 1
    plan = msgspec.json.decode(result.stdout, type=Plan)
    assert plan.advice is not None
    typed = [change.options.split() for change in plan.advice.changes if change.options]
    assert len(typed) >= 2
    monkeypatch.setattr("kvmenc.plan.advise", lambda *_: plan.advice)  # it takes longest
    for options in typed:
        again = CliRunner().invoke(cli.root, ["plan", str(path), *rate, *options, "--json"])
        assert again.exit_code == 0


def test_with_a_link_given_the_cap_is_raised_only_as_far_as_it_goes() -> None:
    parameters = Parameters(link_bytes_per_s=136e6)
    advice = advise(TOO_HOT, parameters)
    assert change_of(advice, "max-bandwidth").least is None
    link = change_of(advice, "link")
    assert link.least is not None
    assert link.sure
    assert link.options == "--link 145MB/s --max-bandwidth 145MB/s"
    raised = Parameters(max_bandwidth_bytes_per_s=link.least, link_bytes_per_s=link.least)
    assert make_plan(TOO_HOT, raised).verdict == "converges"


def test_a_margin_says_how_far_each_may_fall() -> None:
    capture = guest(GIB_PAGES, 0, [(10, 0, 5_000), (1000, 0, 5_000)])
    advice = advise(capture, Parameters())
    assert advice.kind == "margin"
    limit = change_of(advice, "downtime-limit")
    # 5,000 pages at 128 MiB/s are 153 ms.
    assert limit.least == pytest.approx(155, abs=6)
    assert not any(one.knob in {"throttle", "private-rate"} for one in advice.changes)


@pytest.mark.parametrize(
    ("private", "limit_ms", "postcopy", "words"),
    [
        (0, 10, "no-help", "None of these does it."),
        (0, None, "only-way", "Postcopy is the only way."),
        (1, None, "impossible", "there is no postcopy"),
    ],
)
def test_where_nothing_helps_postcopy_is_the_way_but_not_for_private_pages(
    private: int, limit_ms: float | None, postcopy: str, words: str
) -> None:
    """64 GiB are dirty again within a millisecond: more than any pause or link takes."""
    npages = 64 * GIB_PAGES
    pages = (private * npages, (1 - private) * npages)
    capture = guest(npages, pages[0], [(1.0, *pages), (1000.0, *pages)])
    advice = advise(capture, Parameters(time_limit_ms=limit_ms))
    assert advice.postcopy == postcopy
    heading, lines = advice_words(advice)
    assert heading == "What would make it converge, each alone:"
    assert words in lines[-1]
    assert all(it.startswith(("no ", "postcopy ", "auto-converge does not")) for it in lines[:-1])


def test_what_qemu_itself_can_do_is_tried() -> None:
    busy = guest(4 * GIB_PAGES, 0, [(100, 0, 5_000), (1000, 0, 50_000)])
    throttled, moved = advise(busy, Parameters()).capabilities
    assert (throttled.options, moved.options) == ("--auto-converge", "--postcopy")
    assert throttled.throttle_percent >= 30
    for tried, options in ((throttled, "auto_converge"), (moved, "postcopy")):
        plan = make_plan(busy, changed(Parameters(), options, value=True))
        assert (plan.total_time_ms, plan.downtime_ms) == (tried.total_time_ms, tried.downtime_ms)


def test_advice_in_words() -> None:
    _, lines = advice_words(advise(AMD_STORY, Parameters(max_bandwidth_bytes_per_s=1e9)))
    assert lines[0].startswith("downtime limit of about 440 ms (--downtime-limit 440ms): ")
    assert "no max-bandwidth up to 50 GB/s does it" in lines
    assert any(line.startswith("firmware rate of about 4") for line in lines)
    assert "a model: throttled from the start" in lines[-2]
    assert lines[-1].startswith("auto-converge")


@given(now=st.floats(0.01, 1e6))
@settings(deadline=None, max_examples=20)
def test_any_downtime_limit_gets_an_answer(now: float) -> None:
    advice = advise(guest(100, 0, IDLE), Parameters(downtime_limit_ms=now))
    assert change_of(advice, "downtime-limit").least is not None
