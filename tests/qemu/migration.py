"""One real migration, followed from its start to its end."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from tests.qemu.pressure import Pressure, Watcher

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.plan import Parameters
    from tests.qemu.machine import Machine

_CANCEL_S = 120.0
_POLL_S = 0.02
#: In QEMU's source migration/, softmmu/ and system/trace-events; not each version has all of them.
_EVENTS = (
    "migration_bitmap_sync_*",
    "migrate_transferred",
    "migrate_pending_*",
    "migrate_set_state",
    "migration_throttle",
    "cpu_throttle_*",
    "migration_thread_low_pending",
    "migration_completion_*",
    "savevm_state_iterate",
    "vmstate_downtime_*",
    "vm_state_notify",
    "runstate_set",
)
_SAMPLED = ("remaining", "transferred", "dirty-sync-count", "dirty-pages-rate", "normal")

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Migrated:
    """What was seen of a migration.

    Attributes:
        answer: QEMU's whole one at the end; its last one before the migration was given up.
        samples: of its progress.
        bulk_ms: from when it was set up until the first sync after it, as seen by polling.
        pressure: how much QEMU had to wait for a CPU.
    """

    answer: Answer
    samples: list[Answer]
    bulk_ms: float
    pressure: Pressure


def migrate(
    qemu: Machine, uri: str, parameters: Parameters, trace: Path, give_up_s: float
) -> Migrated:
    """Migrate, or give it up; the guest runs on here afterwards.

    Args:
        qemu: what is migrated.
        uri: where to.
        parameters: how.
        trace: for QEMU's trace of what it did when.
        give_up_s: after so long.
    """
    watcher = Watcher(qemu.pid, qemu.vcpu_tids)
    _trace(qemu, trace, enable=True)
    qemu.start_migration(uri, parameters)
    answers = _follow(qemu, watcher, give_up_s)
    pressure = watcher.end(answers[-1]["total-time"] / 1e3)
    _trace(qemu, trace, enable=False)
    _go_on(qemu, answers[-1])
    return Migrated(answers[-1], [_sample(it) for it in answers], _bulk_ms(answers), pressure)


def _trace(qemu: Machine, file: Path, *, enable: bool) -> None:
    if enable:
        assert not qemu.monitor(f"logfile {file}")
    for event in _EVENTS:
        qemu.command("trace-event-set-state", name=event, enable=enable, ignore_unavailable=True)


def _follow(qemu: Machine, watcher: Watcher, give_up_s: float) -> list[Answer]:
    """All its answers while the migration was active, and the last one."""
    answers: list[Answer] = []
    deadline = time.monotonic() + give_up_s
    while not answers or answers[-1]["status"] != "completed":
        answer = msgspec.convert(qemu.command("query-migrate"), Answer)
        status = answer["status"]
        assert status in {"setup", "active", "device", "completed"}, answer
        # A migration is "completed" a little before its times are known.
        if status == "active" or answer.get("total-time"):
            answers.append(answer)
        if status == "active" and time.monotonic() > deadline:
            break
        watcher.look()
        time.sleep(_POLL_S)
    return answers


def _go_on(qemu: Machine, end: Answer) -> None:
    """A migration that was given up may still have come to its end before it is cancelled."""
    if end["status"] != "completed":
        qemu.command("migrate_cancel")
    over = {"completed", "cancelled"}
    if qemu.wait_for("the end", lambda: over & {_status(qemu)}) == {"completed"}:
        qemu.command("cont")


def _status(qemu: Machine) -> str:
    return str(msgspec.convert(qemu.command("query-migrate"), Answer)["status"])


def _sample(answer: Answer) -> Answer:
    ram = answer["ram"]
    sample = {"t_ms": answer["total-time"] - answer.get("setup-time", 0)}
    sample |= {name: ram[name] for name in _SAMPLED if name in ram}
    others = ("cpu-throttle-percentage", "expected-downtime", "downtime", "status")
    return sample | {name: answer[name] for name in others if name in answer}


def _bulk_ms(answers: list[Answer]) -> float:
    """Between the last answer of the bulk stage and the first after it."""
    times_ms = [it["total-time"] - it.get("setup-time", 0) for it in answers]
    for number, answer in enumerate(answers):
        if answer["ram"]["dirty-sync-count"] >= 2:
            return float(times_ms[number] + times_ms[max(number - 1, 0)]) / 2
    return float(times_ms[-1])
