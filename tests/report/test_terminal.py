from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings

from kvmenc import units
from kvmenc.plan import CSV_BATCH_PAGES, Parameters, Plan, Xbzrle, make_plan
from kvmenc.plan.result import Interval
from kvmenc.report.terminal import Terminal, print_plan
from tests.plan.guests import GIB_PAGES, captures, guest
from tests.plan.test_precopy import AMD_STORY

if TYPE_CHECKING:
    from kvmenc.capture import Capture


def printed(plan: Plan, width: int = 80) -> list[str]:
    file = io.StringIO()
    print_plan(plan, Terminal(file=file, width=width, markup=False, highlight=False, emoji=False))
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_the_verdict_comes_first() -> None:
    plan = make_plan(guest(GIB_PAGES, 0, [(100, 0, 500)]), Parameters())
    lines = printed(plan)
    assert lines[0].startswith("Converges: 9.38 s in all, the guest paused for 295 ms; 4 rounds")
    assert "was left to send" in lines[1]


def test_a_plan_that_does_not_converge_says_when_it_gave_up() -> None:
    lines = printed(make_plan(AMD_STORY, Parameters(max_bandwidth_bytes_per_s=1e9)))
    assert lines[0].startswith("Does not converge: given up after ")
    assert "Bottleneck: the firmware." in lines


def test_roads_are_shown_with_pages_bytes_and_time() -> None:
    plan = make_plan(guest(GIB_PAGES, 1000, [(100, 0, 0)], zero=0), Parameters())
    rows = [line.split() for line in printed(plan)]
    assert ["zero", "0", "-", "-"] in rows
    assert ["encrypted", "1,000", "3.97", "MiB", "2.53", "s"] in rows
    assert ["all", "262,144", "1", "GiB", "10.5", "s"] in rows


def test_the_middle_of_a_long_list_is_left_out_and_counted() -> None:
    plan = make_plan(guest(4 * GIB_PAGES, 0, [(1000, 0, 32_000)]), Parameters())
    lines = printed(plan)
    assert len(plan.rounds) > 100
    assert len(lines) < 45
    assert sum(f"({len(plan.rounds) - 14} more)" in line for line in lines) == 1
    assert sum(line.startswith("stopped ") for line in lines) == 1


def test_a_round_with_private_pages_shows_pages_bytes_and_time_by_road() -> None:
    capture = guest(GIB_PAGES, GIB_PAGES // 8, [(1000, 300, 900)], zero=1000)
    plan = make_plan(capture, Parameters(private_rate_pps=20_000))
    rows = [line.split() for line in printed(plan)]
    first = rows.index(next(row for row in rows if row[:1] == ["1"]))
    one = plan.rounds[0]
    assert rows[first][:5] == ["1", "1", "GiB", "normal", f"{one.pages.normal:,}"]
    assert rows[first][-1] == one.bottleneck
    assert rows[first + 1][:2] == ["zero", f"{one.pages.zero:,}"]
    assert rows[first + 2][:2] == ["encrypted", f"{one.pages.encrypted:,}"]
    assert rows[first + 2][-2:] == units.format_time(one.ms_by_road.encrypted).split()


def test_rounds_with_private_pages_are_few_enough_for_a_screen() -> None:
    plan = make_plan(AMD_STORY, Parameters(max_bandwidth_bytes_per_s=1e9))
    lines = printed(plan)
    assert len(plan.rounds) > 10
    assert sum(f"({len(plan.rounds) - 10} more)" in line for line in lines) == 1
    assert len(lines) < 45


def test_capabilities_are_among_the_parameters() -> None:
    capture = guest(GIB_PAGES, 0, [(100, 0, 500)])
    usual = " ".join(printed(make_plan(capture, Parameters())))
    assert "link 134 MB/s (1.07 Gbit/s), downtime limit 300 ms, no time limit." in usual
    parameters = Parameters(auto_converge=True, multifd_channels=4, send_buffer_bytes=2**22)
    text = " ".join(printed(make_plan(capture, parameters)))
    assert "no time limit, auto-converge, multifd of 4, send buffer 4 MiB." in text
    parameters = Parameters(xbzrle=Xbzrle(0.1), private_batch_pages=CSV_BATCH_PAGES)
    text = " ".join(printed(make_plan(capture, parameters)))
    assert "xbzrle to 0.1 of a page, firmware batches of 4094 pages." in text


@pytest.mark.parametrize(("probability", "edge"), [(0.0, False), (0.5, True), (1.0, False)])
def test_the_interval_says_what_it_rests_on(probability: float, edge: bool) -> None:
    times = (None, None) if not probability else (1000.0, 2000.0)
    interval = Interval(
        low_ms=times[0], high_ms=times[1], probability_converges=probability,
        knife_edge=edge, basis="one-window", plans=24,
    )  # fmt: skip
    plan = make_plan(guest(GIB_PAGES, 0, [(100, 0, 500)]), Parameters())
    text = " ".join(printed(msgspec.structs.replace(plan, interval=interval)))
    assert ("ON A KNIFE EDGE" in text) == edge
    assert f"{probability * 100:.0f} % of 24 plans converge (of guests that the" in text
    assert "it has one window" in text
    assert ("nine tenths of them in 1 s to 2 s." in text) == bool(probability)


def table_width(plan: Plan) -> int:
    """Columns that the widest row of a table needs, where there is room for all."""
    ends, starts = ("network", "firmware"), ("round", "road", "normal", "zero", "encrypted", "all ")
    rows = [
        line for line in printed(plan, width=500) if line.endswith(ends) or line.startswith(starts)
    ]
    assert len(rows) >= 6
    return max(len(row) for row in rows)


@settings(deadline=None, max_examples=30)
@given(capture=captures())
def test_tables_need_no_more_than_80_columns(capture: Capture) -> None:
    assert table_width(make_plan(capture, Parameters(time_limit_ms=1e6))) <= 80


def test_tables_of_a_guest_of_12_tib_need_no_more_than_80_columns() -> None:
    capture = guest(12 * 1024 * GIB_PAGES, 2**31, [(100, 2**20, 2**20)], zero=2**28)
    assert table_width(make_plan(capture, Parameters(max_bandwidth_bytes_per_s=1e9))) <= 80


@pytest.mark.parametrize("text", ["[bold]x[/bold]", "[/no]", ":smile:", "[link=http://x]y"])
def test_what_a_capture_says_is_printed_as_it_is(text: str) -> None:
    capture = msgspec.structs.replace(guest(100, 0, [(100, 0, 1)]), source=text)
    assert f"Guest: {text}; 400 KiB, all shared." in printed(make_plan(capture, Parameters()))


def test_a_broken_pipe_is_left_to_the_caller() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Terminal(file=Closed()).print("x")
