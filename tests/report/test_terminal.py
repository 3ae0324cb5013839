from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given, settings

from kvmenc.plan import Parameters, Plan, make_plan
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
    assert f"Guest: {text}; 400 KiB, 0.0% private." in printed(make_plan(capture, Parameters()))


def test_a_broken_pipe_is_left_to_the_caller() -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        Terminal(file=Closed()).print("x")
