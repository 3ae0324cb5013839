"""One migration of a running QEMU: started, followed, and cancelled if it is to be.

Whatever ends the following before the migration ends (Ctrl-C, an error) cancels it: the guest runs
on where it was.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec

from kvmenc import procfs
from kvmenc.errors import HostError, InputError
from kvmenc.plan.result import RamStats
from kvmenc.qemu.facts import NO_MIGRATION
from kvmenc.qemu.monitor import CommandError, ask, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.qemu.facts import Facts
    from kvmenc.qemu.monitor import Monitor

__all__ = ["Band", "Migration", "Progress"]

_POLL_S = 0.1
_CANCEL_PATIENCE_S = 30.0
_ENDS = NO_MIGRATION - {None, "none"}
_SECCOMP_FILTER = "2"
_TRANSPORTS = ("tcp:", "unix:", "fd:", "exec:", "rdma:", "file:", "vsock:")


class Progress(msgspec.Struct, rename="kebab", kw_only=True):
    """What query-migrate says (QEMU v10.0, qapi/migration.json, MigrationInfo).

    Attributes:
        status: such as ``active`` or ``completed``.
        ram: None before anything was sent.
        total_time: in ms, since the start.
        setup_time: of these, until pages were sent.
        downtime: in ms; when it is completed.
        error_desc: why it failed.
    """

    status: str = "none"
    ram: RamStats | None = None
    total_time: int = 0
    setup_time: int = 0
    downtime: int | None = None
    error_desc: str = ""

    @property
    def is_over(self) -> bool:
        """It has completed, failed, or been cancelled."""
        return self.status in _ENDS

    @property
    def is_going(self) -> bool:
        """It has begun, and is not over."""
        return not self.is_over and self.status != "none"


@dataclass(frozen=True, slots=True)
class Band:
    """How long a migration may take before it is cancelled.

    Attributes:
        longest_ms: in all.
        why: in words, for the one who reads that it was cancelled.
    """

    longest_ms: float
    why: str


class Migration:
    """A migration; a context manager that cancels one that is going on when it is left.

    Started within, not on entering: a Ctrl-C that comes while QEMU is being asked leaves one going.

    Args:
        monitor: of the source.
        facts: of it.
        uri: where to, as QEMU takes it.

    Attributes:
        uri: as given.

    Raises:
        InputError: no such transport.
        HostError: one is going on already, or QEMU would not survive it.
    """

    def __init__(self, monitor: Monitor, facts: Facts, uri: str) -> None:
        self._monitor = monitor
        self._asked = False
        self.uri = uri
        _check(facts, uri)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        with suppress(HostError):  # a QEMU that has gone cannot be asked
            if self._asked and self.progress().is_going:
                self.cancel()

    def start(self) -> None:
        """Begin.

        Raises:
            HostError: QEMU does not.
        """
        self._asked = True
        try:
            self._monitor.execute("migrate", uri=self.uri)
        except CommandError as error:
            raise HostError(f"the migration does not start: {error.description}") from error

    def progress(self) -> Progress:
        """How it goes."""
        return ask(self._monitor, Progress, "query-migrate")

    def follow(self, band: Band | None = None) -> Iterator[Progress]:
        """How it goes, ten times a second, until it is over; the last is the end.

        Args:
            band: cancel it when it leaves this.

        Raises:
            HostError: QEMU does not answer any more.
        """
        while not (now := self.progress()).is_over:
            yield now
            if band and now.total_time > band.longest_ms:
                self.cancel()
                break
            time.sleep(_POLL_S)
        yield self.progress()

    def cancel(self) -> None:
        """End it; the guest runs on where it was, unless it has just arrived."""
        self._monitor.execute("migrate_cancel")
        deadline = time.monotonic() + _CANCEL_PATIENCE_S
        while self.progress().is_going:
            if time.monotonic() > deadline:
                raise HostError(
                    f"the migration is not cancelled within {_CANCEL_PATIENCE_S:g} s: see "
                    "`query-migrate`"
                )
            time.sleep(_POLL_S)


def _check(facts: Facts, uri: str) -> None:
    if not uri.startswith(_TRANSPORTS):
        raise InputError(
            f"{one_line(uri)!r}: not where QEMU can migrate to: {' '.join(_TRANSPORTS)}..."
        )
    if facts.is_migrating:
        raise HostError(f"a migration is going on already ({facts.migration})")
    sandboxed = procfs.status_field(facts.pid, "Seccomp") == _SECCOMP_FILTER
    if uri.startswith("exec:") and sandboxed:
        # Its filter may deny execve by killing the process (QEMU v7.2, softmmu/qemu-seccomp.c).
        raise HostError("exec: starts a program, for which this QEMU's sandbox kills it: use tcp:")
