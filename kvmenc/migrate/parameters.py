"""The two of QEMU's migration parameters that a plan chooses: read, set, put back."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import msgspec

from kvmenc.errors import HostError, InputError
from kvmenc.plan import Parameters
from kvmenc.plan.roads import DEFAULT_PRIVATE_RATE_PPS
from kvmenc.qemu.monitor import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.qemu.monitor import Monitor

__all__ = ["Chosen", "QemuParameters"]


class _Answer(msgspec.Struct, rename="kebab"):
    max_bandwidth: int
    downtime_limit: int
    multifd_channels: int = 2


class _Capability(msgspec.Struct):
    capability: str
    state: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What the user chose; None: as QEMU has it, or as a plan takes it.

    Attributes:
        max_bandwidth_bytes_per_s: QEMU's cap while the guest runs.
        downtime_limit_ms: the pause that QEMU may plan for.
        link_bytes_per_s: the network's speed.
        private_rate_pps: private pages through the firmware.
    """

    max_bandwidth_bytes_per_s: float | None = None
    downtime_limit_ms: float | None = None
    link_bytes_per_s: float | None = None
    private_rate_pps: float | None = None

    def over(self, own: QemuParameters) -> Parameters:
        """A plan's parameters: those chosen, and QEMU's own where none is.

        Raises:
            InputError: QEMU has no cap, and the network's speed is not given.
        """
        own_cap = own.max_bandwidth_bytes_per_s or self.link_bytes_per_s
        cap = self.max_bandwidth_bytes_per_s or own_cap
        if not cap:
            raise InputError("QEMU's max-bandwidth is 0, no limit: give the network's with --link")
        return Parameters(
            max_bandwidth_bytes_per_s=cap,
            downtime_limit_ms=self.downtime_limit_ms or own.downtime_limit_ms,
            link_bytes_per_s=self.link_bytes_per_s,
            private_rate_pps=self.private_rate_pps or DEFAULT_PRIVATE_RATE_PPS,
            auto_converge=own.auto_converge,
            multifd_channels=own.multifd_channels,
        )


@dataclass(frozen=True, slots=True)
class QemuParameters:
    """As QEMU has them.

    Attributes:
        max_bandwidth_bytes_per_s: its cap while the guest runs; 0: none.
        downtime_limit_ms: the pause that it may plan for.
        auto_converge: its capability.
        multifd_channels: of its capability; 0: it is off.
    """

    max_bandwidth_bytes_per_s: int
    downtime_limit_ms: int
    auto_converge: bool = False
    multifd_channels: int = 0

    @classmethod
    def read(cls, monitor: Monitor) -> Self:
        """Ask QEMU.

        Raises:
            HostError: it does not answer.
        """
        answer = ask(monitor, _Answer, "query-migrate-parameters")
        on = {
            it.capability
            for it in ask(monitor, list[_Capability], "query-migrate-capabilities")
            if it.state
        }
        return cls(
            answer.max_bandwidth,
            answer.downtime_limit,
            auto_converge="auto-converge" in on,
            multifd_channels=answer.multifd_channels if "multifd" in on else 0,
        )

    @classmethod
    def of(cls, parameters: Parameters) -> Self:
        """What QEMU must be told for a plan's parameters: whole numbers."""
        return cls(round(parameters.max_bandwidth_bytes_per_s), round(parameters.downtime_limit_ms))

    def set(self, monitor: Monitor) -> None:
        """Tell QEMU.

        Raises:
            HostError: it refuses, or does not answer.
        """
        monitor.execute(
            "migrate-set-parameters",
            max_bandwidth=self.max_bandwidth_bytes_per_s,
            downtime_limit=self.downtime_limit_ms,
        )

    @contextmanager
    def in_force(self, monitor: Monitor) -> Iterator[None]:
        """Have QEMU use these, and afterwards those it had; a QEMU that has ended needs none."""
        before = self.read(monitor)
        try:
            self.set(monitor)
            yield
        finally:
            with suppress(HostError):
                before.set(monitor)
