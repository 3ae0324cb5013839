"""How much a QEMU had to wait for a CPU, so that a run on a busy machine is seen to be one."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.qemu.inside import threads

if TYPE_CHECKING:
    from collections.abc import Iterable

#: QEMU's names for the thread that migrates: of 7.2, and of 9 and newer.
MIGRATION_THREADS = {"live_migration", "mig/src/main"}


def go_first() -> None:
    """Run this process, and what it starts, before all others; without the right to, as before.

    Linux shares the CPUs out among sessions first, and by nice only within one (man 7 sched, "The
    autogroup feature"): so this becomes a session of its own.
    """
    with suppress(PermissionError):
        os.setsid()
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, -20)
        Path("/proc/self/autogroup").write_text("-20")


class Pressure(NamedTuple):
    """Shares of the time that was watched.

    Attributes:
        vcpu: for which the vCPUs could have run and did not.
        migration: likewise the thread that migrates.
        steal: of the machine's CPUs, taken by what it runs on itself.
    """

    vcpu: float
    migration: float
    steal: float

    @property
    def is_high(self) -> bool:
        """The migration thread waits for its reader often, and QEMU holds it back anyway."""
        return self.vcpu > 0.02 or self.migration > 0.1

    @property
    def worst(self) -> float:
        return max(self.vcpu, self.migration)

    def __str__(self) -> str:
        return (
            f"of its time the vCPU waited {self.vcpu:.1%} for a CPU, the migration thread "
            f"{self.migration:.1%}; {self.steal:.1%} of the CPUs were stolen"
        )


class Watcher:
    """Watches a QEMU from now on.

    Args:
        pid: QEMU's process.
        vcpu_tids: its vCPU threads.
    """

    def __init__(self, pid: int, vcpu_tids: Iterable[int]) -> None:
        self._pid = pid
        self._vcpus = tuple(vcpu_tids)
        self._migration_tid = 0
        self._migration_waited_ns = 0
        self._vcpus_waited_ns = sum(map(self._waited_ns, self._vcpus))
        self._ticks = _ticks()

    def _waited_ns(self, tid: int) -> int:
        text = Path(f"/proc/{self._pid}/task/{tid}/schedstat").read_text()
        return int(text.split()[1])

    def look(self) -> None:
        """Call now and then: a thread that has ended tells nothing any more."""
        with suppress(FileNotFoundError, ProcessLookupError):
            if not self._migration_tid:
                names = threads(self._pid).items()
                self._migration_tid = next((t for t, it in names if it in MIGRATION_THREADS), 0)
            if self._migration_tid:
                self._migration_waited_ns = self._waited_ns(self._migration_tid)

    def end(self, seconds: float) -> Pressure:
        """What was seen in so long a time."""
        waited_ns = sum(map(self._waited_ns, self._vcpus)) - self._vcpus_waited_ns
        steal, all_ticks = (now - then for now, then in zip(_ticks(), self._ticks, strict=True))
        return Pressure(
            vcpu=waited_ns / 1e9 / seconds,
            migration=self._migration_waited_ns / 1e9 / seconds,
            steal=steal / max(all_ticks, 1),
        )


def _ticks() -> tuple[int, int]:
    """Stolen ones, and all, of /proc/stat (man 5 proc)."""
    fields = [int(it) for it in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    return fields[7], sum(fields)
