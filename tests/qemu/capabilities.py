"""Migrations with QEMU's capabilities, followed from their start to their end."""

from __future__ import annotations

import math
import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from kvmenc.plan.result import QueryMigrate
from kvmenc.qemu.qmp import Qmp
from kvmenc.watch.run import watch
from kvmenc.watch.wishes import Wishes
from tests.qemu.pressure import Pressure, Watcher

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kvmenc.capture import Capture
    from kvmenc.plan import Parameters
    from tests.qemu.machine import Machine

__all__ = ["Answer", "Followed", "captured", "fields", "follow", "listening", "synced_ms"]

Answer = dict[str, Any]

_POLL_S = 0.01
_PATIENCE_S = 30.0
_CAPTURE_S = 2.0
#: A line of QEMU's log, with ``-msg timestamp=on``.
_SYNC = re.compile(r"@([\d.]+):migration_bitmap_sync_(start|end)")
_RUNNING = {"setup", "active", "device", "postcopy-active", "completed"}


@dataclass(frozen=True, slots=True)
class Followed:
    """What was seen of a migration.

    Attributes:
        answers: query-migrate's while it was active, oldest first, and the last one.
        pressure: how much QEMU had to wait for a CPU.
    """

    answers: list[Answer]
    pressure: Pressure

    @property
    def end(self) -> QueryMigrate:
        return msgspec.convert(self.answers[-1], QueryMigrate)

    @property
    def sending_ms(self) -> int:
        return _sending_ms(self.answers[-1])

    @property
    def encoded(self) -> Answer:
        """xbzrle-cache of this migration alone: QEMU 7.2 and 10.0 go on counting from the last."""
        first, last = (self.answers[at]["xbzrle-cache"] for at in (0, -1))
        return {name: last[name] - first[name] for name in ("pages", "bytes", "cache-miss")}

    def active_at(self, share: float) -> Answer:
        """The last answer while it was active, no later than at a share of its time."""
        until_ms = self.sending_ms * share
        active = [it for it in self.answers if it["status"] == "active"]
        return next(it for it in reversed(active) if _sending_ms(it) <= until_ms)

    @property
    def throttled(self) -> list[tuple[int, int]]:
        """Each percentage of cpu-throttle-percentage, and the ms of sending when first seen."""
        steps: dict[int, int] = {}
        for it in self.answers:
            steps.setdefault(it.get("cpu-throttle-percentage", 0), _sending_ms(it))
        return [(pct, ms) for pct, ms in steps.items() if pct]


def _sending_ms(answer: Answer) -> int:
    return int(answer["total-time"] - answer["setup-time"])


def fields(answer: object, prefix: str = "") -> set[str]:
    """The names in an answer, of members of members too."""
    if not isinstance(answer, dict):
        return {prefix}
    return {name for key, it in answer.items() for name in fields(it, f"{prefix}/{key}")}


def synced_ms(log: Path) -> list[float]:
    """How long each sync took, by QEMU's trace."""
    times = [float(it) * 1000 for it, _ in _SYNC.findall(log.read_text())]
    return [end - start for start, end in zip(times[::2], times[1::2], strict=True)]


def set_capabilities(qemu: Machine, parameters: Parameters) -> None:
    """What both ends of a migration must agree on; auto-converge is the sender's alone."""
    wanted = {
        "multifd": bool(parameters.multifd_channels),
        "xbzrle": bool(parameters.xbzrle),
        "postcopy-ram": parameters.postcopy,
    }
    states = [{"capability": name, "state": state} for name, state in wanted.items()]
    qemu.command("migrate-set-capabilities", capabilities=states)
    if parameters.multifd_channels:
        qemu.command("migrate-set-parameters", multifd_channels=parameters.multifd_channels)
    if parameters.xbzrle:
        size = int(parameters.xbzrle.cache_bytes)
        qemu.command("migrate-set-parameters", xbzrle_cache_size=size)


@contextmanager
def listening(qemu: Machine, folder: Path, parameters: Parameters) -> Iterator[str]:
    """Another QEMU that takes the guest in, over loopback; its URI."""
    with qemu.twin(folder) as twin:
        set_capabilities(twin, parameters)
        if parameters.postcopy:
            twin.command("cont")  # as soon as it can
        yield twin.listen()


def follow(
    qemu: Machine,
    parameters: Parameters,
    uri: str = "exec:cat >/dev/null",
    until_ms: float = math.inf,
) -> Followed:
    """Migrate to the end, or cancel after so many ms of sending.

    Postcopy, if the parameters want it, is begun at the first answer after the first pass.
    """
    set_capabilities(qemu, parameters)
    watcher = Watcher(qemu.pid, qemu.vcpu_tids)
    qemu.start_migration(uri, parameters)
    answers = list(_answers(qemu, watcher, until_ms, postcopy=parameters.postcopy))
    pressure = watcher.end(answers[-1]["total-time"] / 1e3)
    if answers[-1]["status"] == "active":
        qemu.command("migrate_cancel")
        qemu.wait_for("the cancelling", lambda: _asked(qemu)["status"] == "cancelled")
    return Followed(answers, pressure)


def _answers(
    qemu: Machine, watcher: Watcher, until_ms: float, *, postcopy: bool
) -> Iterator[Answer]:
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        answer = _asked(qemu)
        assert answer["status"] in _RUNNING, answer
        watcher.look()
        # A migration is "completed" a little before its times are known.
        if answer.get("total-time") and answer["status"] != "setup":
            yield answer
            if answer["status"] == "completed":
                return
            if _sending_ms(answer) >= until_ms:
                return
            if postcopy and answer["ram"]["dirty-sync-count"] > 1:
                qemu.command("migrate-start-postcopy")
                postcopy = False
        time.sleep(_POLL_S)
    raise AssertionError(f"no end after {_PATIENCE_S:g} s: {_asked(qemu)}")


def _asked(qemu: Machine) -> Answer:
    return msgspec.convert(qemu.command("query-migrate"), Answer)


def captured(qemu: Machine) -> Capture:
    """The guest as ``kvmenc capture`` sees it, in a short look."""
    with Qmp(qemu.second_socket) as monitor:
        return watch(monitor, Wishes(seconds=_CAPTURE_S), lambda *_: None).capture
