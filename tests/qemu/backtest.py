"""Predict real migrations, do them, and write down both: ``python -m tests.qemu.backtest FOLDER``.

Every scenario is captured once and migrated several times, so that the spread of the runs stands
beside the error. A capture in which a look came late (the machine was busy) is made anew, before
anything is known of the migration; a migration is made anew if QEMU had to wait for a CPU.

What is in the folder already is kept, unless FRESH=1. More arguments choose scenarios by words that
are in their names.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from kvmenc.capture import save_capture
from kvmenc.qemu.qmp import Qmp
from kvmenc.watch.run import watch
from kvmenc.watch.wishes import Wishes
from tests.qemu import deviceload
from tests.qemu.machine import Machine
from tests.qemu.migration import Migrated, migrate
from tests.qemu.pressure import go_first
from tests.qemu.scenarios import SCENARIOS, Scenario

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from kvmenc.watch.wishes import Watched
    from tests.qemu.transport import Transport

CAPTURE_S = 8.0
REPEATS = 3
TRIES = 3
_CAPTURES = 4


def record(
    scenarios: Iterable[Scenario],
    folder: Path,
    repeats: int = REPEATS,
    tries: int = TRIES,
    *,
    fresh: bool = True,
    capture_s: float = CAPTURE_S,
) -> Iterator[Path]:
    """Yield a run file for each migration; its capture, progress and trace lie beside it.

    Args:
        scenarios: to be captured and migrated.
        folder: for the files.
        repeats: migrations of each.
        tries: how often a disturbed migration is made at most.
        fresh: make anew what is there already.
        capture_s: for how long a guest is watched.
    """
    for scenario in scenarios:
        stem = "-".join(re.findall(r"[a-z0-9.]+", scenario.name.lower()))
        files = [folder / f"{stem}-{number}.json" for number in range(1, repeats + 1)]
        if fresh or not all(file.exists() for file in files):
            for file in files:
                file.unlink(missing_ok=True)
            yield from _record(scenario, files, folder / f"{stem}.zip", tries, capture_s)


def _record(
    scenario: Scenario, files: list[Path], capture: Path, tries: int, capture_s: float
) -> Iterator[Path]:
    with running(scenario) as (qemu, transport):
        watched = captured(qemu, capture_s)
        save_capture(watched.capture, capture, watched.bitmaps)
        for file in files:
            migrated = _migrated(scenario, qemu, transport, file.with_suffix(""), tries)
            lines = b"\n".join(map(msgspec.json.encode, migrated.samples))
            file.with_suffix(".progress.jsonl").write_bytes(lines)
            run = run_of(scenario, file.stem, capture.name, migrated, transport, qemu)
            file.write_bytes(msgspec.json.format(msgspec.json.encode(run)))
            yield file


@contextmanager
def running(scenario: Scenario) -> Iterator[tuple[Machine, Transport]]:
    """Its guest, and its devices, at work."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvmenc-")))
        transport = stack.enter_context(scenario.transport.made(folder))
        setup = replace(scenario.setup, netns=transport.netns)
        qemu = stack.enter_context(Machine(folder / "vm", scenario.guest, setup=setup))
        if scenario.device:
            words = [str(qemu.device_socket()), *scenario.device.words]
            load = subprocess.Popen([sys.executable, "-m", deviceload.__name__, *words])
            stack.callback(load.wait)
            stack.callback(load.terminate)
        yield qemu, transport


def captured(qemu: Machine, seconds: float = CAPTURE_S) -> Watched:
    with Qmp(qemu.second_socket) as monitor:
        for _ in range(_CAPTURES):
            watched = watch(monitor, Wishes(seconds=seconds), lambda *_: None)
            if not any("late" in note for note in watched.capture.notes):
                return watched
    raise AssertionError("the machine is too busy to capture a guest that runs as it should")


def _migrated(
    scenario: Scenario, qemu: Machine, transport: Transport, stem: Path, tries: int
) -> Migrated:
    """The first migration that was not disturbed, else the least disturbed of some."""
    best, trace = None, stem.with_name(f"{stem.name}.trying")
    for _ in range(tries):
        with transport.open(qemu) as uri:
            parameters = scenario.parameters(transport)
            migrated = migrate(qemu, uri, parameters, trace, scenario.give_up_s)
        if best is None or migrated.pressure.worst < best.pressure.worst:
            best = migrated
            trace.replace(f"{stem}.trace")
        trace.unlink(missing_ok=True)
        if not best.pressure.is_high:
            break
    assert best
    return best


def run_of(
    scenario: Scenario,
    name: str,
    capture: str,
    migrated: Migrated,
    transport: Transport,
    qemu: Machine,
) -> dict[str, object]:
    """What the run file says."""
    parameters = scenario.parameters(transport)
    given = {
        "max_bandwidth_bytes_per_s": parameters.max_bandwidth_bytes_per_s,
        "link_bytes_per_s": parameters.link_bytes_per_s,
        "downtime_limit_ms": parameters.downtime_limit_ms,
        "auto_converge": parameters.auto_converge,
    }
    if transport.send_buffer_bytes is not None:
        given["send_buffer_bytes"] = transport.send_buffer_bytes
    return {
        "schema": "kvmenc.backtest-run/1",
        "name": name,
        "scenario": scenario.name,
        "source": f"a real QEMU: {scenario.guest.writer}"[:1000],
        "transport": scenario.transport.kind,
        "qemu": qemu.version(),
        "capture": capture,
        "parameters": given,
        "bulk_ms": migrated.bulk_ms,
        "query_migrate": migrated.answer,
        "assumptions": [transport.says],
        "notes": [str(migrated.pressure)],
    }


def main(where: Path, words: list[str]) -> None:
    go_first()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    where.mkdir(parents=True, exist_ok=True)
    chosen = [it for it in SCENARIOS if not words or any(word in it.name for word in words)]
    for written in record(chosen, where, fresh=os.environ.get("FRESH") == "1"):
        run = msgspec.json.decode(written.read_bytes())
        answer = run["query_migrate"]
        ram = answer["ram"]
        print(
            f"{written.stem}: {answer['status']} after {answer['total-time']} ms, bulk "
            f"{run['bulk_ms']:.0f}, {ram['dirty-sync-count']} syncs, {run['notes'][0]}",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
