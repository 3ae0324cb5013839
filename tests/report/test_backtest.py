"""A back-test as it is printed."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from kvmenc.backtest.result import Backtest, RunScore, UsedProfile
from kvmenc.backtest.scenarios import audit, by_scenario
from kvmenc.backtest.summary import confidence, ratios, summarise
from kvmenc.backtest.targets import targets
from kvmenc.report.backtest import print_backtest
from kvmenc.report.terminal import Terminal
from tests.backtest.scores import scored, stated

if TYPE_CHECKING:
    from kvmenc.backtest.result import Field


def printed(*runs: RunScore, proven: bool = True) -> str:
    scenarios, summary = by_scenario(runs), summarise(runs)
    against, hard, sure = ratios(runs), audit(scenarios), confidence(runs, scenarios)
    result = Backtest(
        profile="qemu-7.2",
        profiles=(UsedProfile("qemu-7.2", proven, len(runs)),),
        grid=None,
        runs=runs,
        scenarios=scenarios,
        summary=summary,
        confidence=sure,
        ratios=against,
        audit=hard,
        targets=targets(summary, sure, against, hard),
    )
    console = Terminal(file=io.StringIO(), width=80)
    print_backtest(result, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def run(scenario: str, total_ms: float = 12_345.0, **changes: object) -> RunScore:
    return scored(
        {
            "total-time": (total_ms, 12_400),
            "after_bulk_ms": (8000, 8888),
            "downtime": (310.2, 305.1),
            "transferred": (1e9, 1.0021e9),
            "dirty-sync-count": (12, 13),
        },
        scenario=scenario,
        lasted_ms=total_ms,
        **changes,
    )


def line(text: str, start: str) -> list[str]:
    [found] = [it for it in text.splitlines() if it.startswith(start)]
    return found.removeprefix(start).split()


def test_a_line_holds_what_happened_and_what_was_planned() -> None:
    text = printed(run("hot", 12_000), run("hot", 12_690))
    assert line(text, "hot ") == [
        "2/2", "yes", "12.3", "5.6", "12.4", "+0.4", "+11", "12/13", "310/305", "+0.2"
    ]  # fmt: skip


def test_on_a_knife_edge_the_probability_is_said() -> None:
    runs = [run("edge", interval=stated(0.6), converged=converged) for converged in (True, False)]
    text = printed(*runs)
    assert line(text, "edge ")[:3] == ["1/2", "yes", ".60"]
    assert "a probability of 0.05 to 0.95" in " ".join(text.split())


def test_what_is_not_known_is_a_dash() -> None:
    text = printed(scored({}, scenario="dark", converged=False))
    assert line(text, "dark ") == ["0/1", "yes", *"--------"]


@pytest.mark.parametrize("name", ["a" * 100, "hot-set-far-above-the-threshold-of-a-fast-link"])
def test_80_columns_are_enough(name: str) -> None:
    wide = run(name, 3.6e6, interval=stated(0.55), transport="tcp")
    text = printed(*(run(f"{name} {number}") for number in range(30)), wide)
    assert max(map(len, text.splitlines())) <= 80
    assert text.isascii()


def test_no_error_is_too_large_for_its_line() -> None:
    values: dict[Field, tuple[float, float | None]] = {
        "total-time": (1.0, 1e7),
        "transferred": (1.0, 9.9),
        "downtime": (1.0, 2.0),
    }
    text = printed(*[scored(values, transport="tcp")] * 500)
    assert max(map(len, text.splitlines())) <= 80
    assert line(text, "total time, % off ") == [">999", "/", ">999", "(500)"] * 3
    assert line(text, "transferred, % off ") == ["890", "/", "890", "(500)"] * 3
    assert line(text, "  within 20 ms or 20 % ") == ["500", "of", "500"] * 3


def test_every_target_takes_one_line() -> None:
    text = printed(run("hot"))
    table, few = text.split("Targets")[1].split("- asked of ")
    assert len(table.strip().splitlines()) == 1 + 26
    assert few.split()[:3] == ["40", "scenarios", "or"]
    assert line(text, "fewest repeats of one ") == ["1", ">=", "3", "1", "missed", "by", "2"]


@pytest.mark.parametrize(("proven", "mark"), [(True, ""), (False, ", unproven")])
def test_rules_that_were_never_run_against_their_own_binary_are_marked(
    proven: bool, mark: str
) -> None:
    assert f"(kvmenc by the rules of qemu-7.2{mark})" in printed(run("hot"), proven=proven)
