"""QEMU's own dirty-rate measurement: turns KVM's dirty log on for a while, and off again.

Source: QEMU v7.2 and v10.0, migration/dirtyrate.c.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import msgspec

from kvmenc.errors import HostError
from kvmenc.qemu.facts import NO_MIGRATION, ask_kind, ask_migration, ask_version
from kvmenc.qemu.monitor import CommandError, ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.qemu.monitor import Monitor

__all__ = ["DirtyRate", "RatePoint", "rate_samples"]

RateStatus = Literal["unstarted", "measuring", "measured"]

#: QEMU v7.2, MIN_FETCH_DIRTYRATE_TIME_SEC and MAX_FETCH_DIRTYRATE_TIME_SEC.
CALC_TIME_S = range(1, 61)
#: QEMU v10.0, MIN_CALC_TIME_MS and MAX_CALC_TIME_MS.
CALC_TIME_MS = range(50, 60_001)

_WITH_BITMAP, _WITH_MS = (6, 2, 0), (8, 2, 0)
# A first sync of a large guest, and QEMU's main loop that waits for it.
_PATIENCE_S = 60.0
_POLL_S = 0.01


class _Info(msgspec.Struct, rename="kebab"):
    status: RateStatus
    mode: str = ""
    dirty_rate: int | None = None


class DirtyRate:
    """The measurement of one QEMU, in the mode that reads KVM's dirty bitmap.

    Args:
        monitor: asked.

    Attributes:
        in_ms: this QEMU measures milliseconds too.

    Raises:
        HostError: this QEMU does not have that mode, or it would end with this guest.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._calc_time_s: float | None = None
        version, kind = ask_version(monitor), ask_kind(monitor)
        if version < _WITH_BITMAP:
            name = ".".join(map(str, version))
            raise HostError(f"QEMU {name} cannot measure by dirty bitmap: it needs 6.2 or newer")
        if kind.uses_guest_memfd:
            # KVM refuses a dirty log to a slot with guest_memfd (Linux v6.12, virt/kvm/kvm_main.c,
            # check_memory_region_flags), and QEMU calls abort() then (v10.0, kvm_log_start).
            raise HostError(
                f"a {kind} guest has no dirty log, and QEMU ends when it is turned on: "
                "nothing was asked for"
            )
        self.in_ms = version >= _WITH_MS

    def start(self, calc_time_s: int) -> None:
        """Turn the dirty log on, for that long; QEMU turns it off by itself.

        Args:
            calc_time_s: 1 to 60.

        Raises:
            HostError: a migration or another measurement goes on, the VM's dirty log is a ring, or
                QEMU does not answer.
        """
        if calc_time_s not in CALC_TIME_S:
            raise HostError(f"calc-dirty-rate takes 1 to 60 s, not {calc_time_s}")
        self._start(calc_time_s, calc_time=calc_time_s)

    def start_ms(self, calc_time_ms: int) -> None:
        """As ``start``; QEMU 8.2 or newer.

        Args:
            calc_time_ms: 50 to 60,000.

        Raises:
            HostError: as ``start``, or QEMU is older.
        """
        if not self.in_ms:
            raise HostError("this QEMU measures whole seconds only: milliseconds need 8.2")
        if calc_time_ms not in CALC_TIME_MS:
            raise HostError(f"calc-dirty-rate takes 50 to 60,000 ms, not {calc_time_ms}")
        self._start(calc_time_ms / 1000, calc_time=calc_time_ms, calc_time_unit="millisecond")

    def status(self) -> RateStatus:
        """Whether a measurement goes on; "unstarted" also in the instant after a start."""
        return self._info().status

    def wait(self) -> None:
        """Wait until no measurement goes on; at once where none was started.

        Raises:
            HostError: it does not end in time.
        """
        deadline = time.monotonic() + (self._calc_time_s or CALC_TIME_S[-1]) + _PATIENCE_S
        while self._goes_on():
            if time.monotonic() > deadline:
                raise HostError(
                    f"{self._monitor.name}: calc-dirty-rate does not end {_PATIENCE_S:g} s past "
                    "its time"
                )
            time.sleep(_POLL_S)

    def rate(self) -> int:
        """What the last measurement found, in MiB/s.

        Raises:
            HostError: there is none, or somebody else's took its place.
        """
        info = self._info()
        if info.mode != "dirty-bitmap" or info.dirty_rate is None:
            raise HostError(
                f"{self._monitor.name}: there is no dirty rate by bitmap; did somebody else begin "
                "to measure?"
            )
        return info.dirty_rate

    def _goes_on(self) -> bool:
        """QEMU says "unstarted" until the thread that it starts for one has begun."""
        status = self.status()
        return status == "measuring" or (status == "unstarted" and self._calc_time_s is not None)

    def _start(self, calc_time_s: float, **arguments: object) -> None:
        migration = ask_migration(self._monitor)
        if migration not in NO_MIGRATION:
            raise HostError(
                f"a migration goes on ({migration}): its dirty log is not to be touched"
            )
        if self.status() == "measuring":
            raise self._busy()
        try:
            self._monitor.execute("calc-dirty-rate", mode="dirty-bitmap", **arguments)
        except CommandError as error:
            raise self._explained(error) from error
        self._calc_time_s = calc_time_s

    def _explained(self, error: CommandError) -> HostError:
        if "already being measured" in error.description:
            return self._busy()
        if "dirty-bitmap is not enabled" in error.description:
            return HostError(
                f"{self._monitor.name}: this VM's dirty log is a ring (dirty-ring-size), which "
                "has no bitmap to read"
            )
        return error

    def _busy(self) -> HostError:
        return HostError(
            f"{self._monitor.name}: a dirty rate is being measured already; wait for it "
            "(`query-dirty-rate`; 60 s at most)"
        )

    def _info(self) -> _Info:
        return ask(self._monitor, _Info, "query-dirty-rate")


@dataclass(frozen=True, slots=True)
class RatePoint:
    """Distinct pages that vCPUs wrote within a time.

    Attributes:
        since_s: when it was known, since the first measurement was begun.
        ms: the time.
        pages: how many.
        error_pages: how wrong that may be, either way: QEMU tells whole MiB/s only.
    """

    since_s: float
    ms: int
    pages: float
    error_pages: float


def rate_samples(monitor: Monitor, total_s: float) -> Iterator[RatePoint]:
    """A curve without looking into the process: measure for ever longer times, one by one.

    Begins with 50 ms where QEMU can (8.2 and newer), else with 1 s; each time twice the last. Every
    measurement begins with a clean log, so it is a stretch of its own, and of other writes.

    Args:
        monitor: asked.
        total_s: what all of them may take; the first is made in any case.

    Raises:
        HostError: as ``DirtyRate``, its ``start`` and its ``rate``.
    """
    rate = DirtyRate(monitor)
    began, ms = time.monotonic(), 50 if rate.in_ms else 1000
    while ms in CALC_TIME_MS:
        if rate.in_ms:
            rate.start_ms(ms)
        else:
            rate.start(ms // 1000)
        rate.wait()
        low, high = pages_of_rate(rate.rate(), ms, in_ms=rate.in_ms)
        passed_s = time.monotonic() - began
        yield RatePoint(passed_s, ms, (low + high) / 2, (high - low) / 2)
        ms *= 2
        if passed_s + ms / 1000 > total_s:
            return


def pages_of_rate(mib_per_s: int, ms: int, *, in_ms: bool) -> tuple[int, int]:
    """The fewest and the most 4 KiB pages that QEMU calls this rate (do_calculate_dirtyrate).

    Before 8.2 it rounds down to MiB first: ``(pages / 256) * 1000 / ms``; since, it does not:
    ``(pages * 1000 / 256) / ms``.
    """
    if in_ms:
        return -(-mib_per_s * ms * 256 // 1000), ((mib_per_s + 1) * ms * 256 - 1) // 1000
    fewest_mib, most_mib = -(-mib_per_s * ms // 1000), ((mib_per_s + 1) * ms - 1) // 1000
    return fewest_mib * 256, most_mib * 256 + 255
