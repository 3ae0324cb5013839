"""Predict real migrations, do them, and write down both: ``python -m tests.qemu.backtest FOLDER``.

Every scenario is captured once and migrated several times, so that the spread of the runs stands
beside the error. A capture in which a look came late (the machine was busy) is made anew, before
anything is known of the migration.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kvmenc.capture import save_capture
from kvmenc.qemu.qmp import Qmp
from kvmenc.watch.run import watch
from kvmenc.watch.wishes import Wishes
from tests.qemu.machine import Machine
from tests.qemu.scenarios import SCENARIOS, Scenario
from tests.qemu.setup import Setup

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kvmenc.watch.wishes import Watched

CAPTURE_S = 5.0
REPEATS = 3
GIVE_UP_S = 25.0
_CAPTURES = 4


def record(scenarios: Iterable[Scenario], folder: Path, repeats: int = REPEATS) -> Iterator[Path]:
    """Yield a run file for each migration; its capture lies beside it."""
    for number, scenario in enumerate(scenarios):
        stem = f"{number:02}-{'-'.join(re.findall(r'[a-z0-9]+', scenario.name))}"
        setup = Setup(cpu_limit_s=600)
        with Machine(folder / f"{stem}-vm", scenario.guest, setup=setup) as qemu:
            capture = folder / f"{stem}.zip"
            watched = captured(qemu)
            save_capture(watched.capture, capture, watched.bitmaps)
            for repeat in range(1, repeats + 1):
                run = run_of(scenario, f"{stem}-{repeat}", capture.name, migrated(qemu, scenario))
                file = folder / f"{stem}-{repeat}.json"
                file.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
                yield file


def captured(qemu: Machine) -> Watched:
    with Qmp(qemu.second_socket) as monitor:
        for _ in range(_CAPTURES):
            watched = watch(monitor, Wishes(seconds=CAPTURE_S), lambda *_: None)
            if not any("late" in note for note in watched.capture.notes):
                return watched
    raise AssertionError("the machine is too busy to capture a guest that runs as it should")


def migrated(qemu: Machine, scenario: Scenario) -> object:
    """QEMU's whole answer at the end; its last one before a migration was given up."""
    qemu.start_migration("exec:cat >/dev/null", scenario.parameters)
    deadline = time.monotonic() + GIVE_UP_S
    while (answer := asked(qemu))["status"] != "completed" and time.monotonic() < deadline:
        time.sleep(0.05)
    if answer["status"] == "completed":
        qemu.command("cont")
    else:
        qemu.command("migrate_cancel")
        qemu.wait_for("the cancelling", lambda: asked(qemu)["status"] == "cancelled")
    return answer


def asked(qemu: Machine) -> dict[str, object]:
    return msgspec.convert(qemu.command("query-migrate"), dict[str, object])


def run_of(scenario: Scenario, name: str, capture: str, answer: object) -> dict[str, object]:
    parameters = scenario.parameters
    return {
        "schema": "kvmenc.backtest-run/1",
        "name": name,
        "source": f"a real QEMU: {scenario.name}; {scenario.guest.writer}",
        "capture": capture,
        "parameters": {
            "max_bandwidth_bytes_per_s": parameters.max_bandwidth_bytes_per_s,
            "link_bytes_per_s": parameters.link_bytes_per_s,
            "downtime_limit_ms": parameters.downtime_limit_ms,
        },
        "query_migrate": answer,
        "assumptions": ["A pipe into another process carries 1 GB/s."],
    }


if __name__ == "__main__":
    where = Path(sys.argv[1])
    where.mkdir(parents=True, exist_ok=True)
    for written in record(SCENARIOS, where):
        print(written, flush=True)
