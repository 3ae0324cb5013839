"""Whether recorded migrations are the ones that were wanted: ``python -m tests.qemu.audit FOLDER``.

A scenario counts by its runs' median.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, NamedTuple

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Figures(msgspec.Struct, rename="kebab"):
    """Of QEMU's last answer."""

    status: str
    total_time: float
    ram: dict[str, float]
    setup_time: float = 0
    downtime: float | None = None


class Recorded(msgspec.Struct):
    """What is looked at in a run file."""

    name: str
    scenario: str
    transport: str
    qemu: str
    parameters: dict[str, float | bool]
    bulk_ms: float
    query_migrate: Figures
    notes: list[str]


class Row(NamedTuple):
    """One scenario: medians over its runs, and the spread of their times."""

    scenario: str
    runs: int
    transport: str
    total_s: float
    spread_s: float
    after_bulk: float
    syncs: float
    downtime_ms: float | None
    completed: int
    auto_converge: bool

    def __str__(self) -> str:
        downtime = "-" if self.downtime_ms is None else f"{self.downtime_ms:.0f}"
        return (
            f"{self.scenario:45}{self.transport:5}{self.completed}/{self.runs}{self.total_s:7.1f}"
            f"{self.spread_s:7.2f}{self.after_bulk:7.0%}{self.syncs:6.0f}{downtime:>7}"
        )


HEADER = f"{'scenario':45}{'way':5}done  total spread  after syncs  pause"


def rows(folder: Path) -> list[Row]:
    """Of all run files in a folder."""
    by_scenario: dict[str, list[Recorded]] = defaultdict(list)
    for file in sorted(folder.glob("*.json")):
        run = msgspec.json.decode(file.read_bytes(), type=Recorded)
        by_scenario[run.scenario].append(run)
    return [_row(name, runs) for name, runs in by_scenario.items()]


def _row(name: str, runs: list[Recorded]) -> Row:
    ends = [run.query_migrate for run in runs]
    times_ms = [end.total_time - end.setup_time for end in ends]
    bulks = [run.bulk_ms / time for run, time in zip(runs, times_ms, strict=True)]
    pauses = [end.downtime for end in ends if end.downtime is not None]
    return Row(
        scenario=name,
        runs=len(runs),
        transport=runs[0].transport,
        total_s=median(times_ms) / 1e3,
        spread_s=(max(times_ms) - min(times_ms)) / 1e3,
        after_bulk=1 - median(bulks),
        syncs=median(end.ram["dirty-sync-count"] for end in ends),
        downtime_ms=median(pauses) if pauses else None,
        completed=sum(end.status == "completed" for end in ends),
        auto_converge=bool(runs[0].parameters.get("auto_converge")),
    )


def shares(all_rows: list[Row]) -> Iterable[str]:
    """What is asked of the scenarios as a whole, and what they are."""

    def count(what: str, wanted: str, look: Callable[[Row], bool]) -> str:
        number = sum(map(look, all_rows))
        return f"{what}: {number} of {len(all_rows)} ({number / len(all_rows):.0%}); {wanted}"

    yield count("over half the time after the bulk stage", "half", lambda it: it.after_bulk > 0.5)
    yield count("ten syncs or more", "a third", lambda it: it.syncs >= 10)
    yield count("longer than 5 s", "all", lambda it: it.total_s > 5)
    yield count("longer than 25 s", "few", lambda it: it.total_s > 25)
    yield count("given up", "6", lambda it: it.completed == 0)
    yield count("both given up and not", "15 %", lambda it: 0 < it.completed < it.runs)
    yield count("auto-converge", "several", lambda it: it.auto_converge)
    yield f"ways: {dict(Counter(it.transport for it in all_rows))}"
    yield f"time of all runs: {sum(it.total_s * it.runs for it in all_rows) / 60:.1f} min"


if __name__ == "__main__":
    recorded = rows(Path(sys.argv[1]))
    print(HEADER, *recorded, "", *shares(recorded), sep="\n")
