"""One guest over a grid of bandwidths and downtime limits, and which parameter matters most."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from msgspec import Struct

from kvmenc.plan.build import guest_of, inputs_of
from kvmenc.plan.profile import QEMU_10_0
from kvmenc.plan.result import Guest, Inputs, Verdict
from kvmenc.plan.whatif import WhatIf, converges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kvmenc.capture import Capture
    from kvmenc.plan.parameters import Parameters
    from kvmenc.plan.profile import Profile

__all__ = ["Cell", "Grid", "Sensitivity", "make_grid"]

#: Ten per cent either way.
_STEP = 0.1


class Cell(Struct, frozen=True, kw_only=True):
    """One migration of the grid.

    Attributes:
        max_bandwidth_bytes_per_s: QEMU's cap, and the network's speed.
        downtime_limit_ms: QEMU's downtime-limit.
        verdict: ``converges`` or ``does-not-converge``.
        total_time_ms: null when it does not converge.
        downtime_ms: null likewise.
        sync_count: how often QEMU looks what is dirty.
    """

    max_bandwidth_bytes_per_s: float
    downtime_limit_ms: float
    verdict: Verdict
    total_time_ms: float | None
    downtime_ms: float | None
    sync_count: int


class Sensitivity(Struct, frozen=True, kw_only=True):
    """What 10 per cent of one parameter change.

    Attributes:
        parameter: which; ``writes`` is how fast the guest writes.
        less_total_time_ms: total time with 10 per cent less; null when it does not converge.
        more_total_time_ms: with 10 per cent more; null likewise.
    """

    parameter: Literal["bandwidth", "downtime-limit", "private-rate", "writes"]
    less_total_time_ms: float | None
    more_total_time_ms: float | None


class Grid(Struct, frozen=True, kw_only=True):
    """What ``kvmenc sweep --json`` prints.

    Attributes:
        schema: ``kvmenc.sweep/1``.
        profile: whose rules were followed.
        guest: what was migrated.
        bandwidths_bytes_per_s: the grid's rows.
        downtime_limits_ms: its columns.
        inputs: the parameters of all cells but for those two.
        cells: row by row.
        sensitive_at: the cell that the sensitivity is of: of those that converge, the one in the
            middle by total time; null when none converges.
        sensitivity: the parameter that changes most first; empty likewise.
    """

    schema: Literal["kvmenc.sweep/1"] = "kvmenc.sweep/1"
    profile: str
    guest: Guest
    bandwidths_bytes_per_s: tuple[float, ...]
    downtime_limits_ms: tuple[float, ...]
    inputs: Inputs
    cells: tuple[Cell, ...]
    sensitive_at: Cell | None
    sensitivity: tuple[Sensitivity, ...]

    def rows(self) -> Iterator[tuple[float, tuple[Cell, ...]]]:
        """Each bandwidth with its cells."""
        width = len(self.downtime_limits_ms)
        for i, bandwidth in enumerate(self.bandwidths_bytes_per_s):
            yield bandwidth, self.cells[i * width : (i + 1) * width]


def make_grid(
    capture: Capture,
    bandwidths_bytes_per_s: Sequence[float],
    downtime_limits_ms: Sequence[float],
    parameters: Parameters,
    profile: Profile = QEMU_10_0,
    update: Callable[[float], object] = lambda _share: None,
) -> Grid:
    """Migrate the captured guest with every bandwidth and downtime limit.

    Args:
        capture: the guest.
        bandwidths_bytes_per_s: each is QEMU's cap and the network's speed.
        downtime_limits_ms: of each.
        parameters: everything else.
        profile: whose rules are followed.
        update: told which share of the cells is done.
    """
    what_if = WhatIf(capture, profile)
    wanted = [
        replace(
            parameters,
            max_bandwidth_bytes_per_s=bandwidth,
            link_bytes_per_s=None,
            downtime_limit_ms=limit_ms,
        )
        for bandwidth in bandwidths_bytes_per_s
        for limit_ms in downtime_limits_ms
    ]
    cells = []
    for one in wanted:
        cells.append(_cell(what_if, one))
        update(len(cells) / len(wanted))
    ended = sorted(
        (cell.total_time_ms, i) for i, cell in enumerate(cells) if cell.total_time_ms is not None
    )
    middle = ended[len(ended) // 2][1] if ended else None
    return Grid(
        profile=profile.name,
        guest=guest_of(capture),
        bandwidths_bytes_per_s=tuple(bandwidths_bytes_per_s),
        downtime_limits_ms=tuple(downtime_limits_ms),
        inputs=inputs_of(parameters),
        cells=tuple(cells),
        sensitive_at=None if middle is None else cells[middle],
        sensitivity=() if middle is None else _sensitivity(what_if, wanted[middle], cells[middle]),
    )


def _cell(what_if: WhatIf, parameters: Parameters, speed: float = 1.0) -> Cell:
    outcome = what_if.outcome(parameters, speed)
    ends = converges(outcome, parameters)
    return Cell(
        max_bandwidth_bytes_per_s=parameters.max_bandwidth_bytes_per_s,
        downtime_limit_ms=parameters.downtime_limit_ms,
        verdict="converges" if ends else "does-not-converge",
        total_time_ms=outcome.total_ms if ends else None,
        downtime_ms=outcome.downtime_ms if ends else None,
        sync_count=outcome.counters.sync_count,
    )


def _sensitivity(what_if: WhatIf, at: Parameters, cell: Cell) -> tuple[Sensitivity, ...]:
    less, more = 1 - _STEP, 1 + _STEP

    def total_ms(speed: float = 1.0, **scaled: float) -> float | None:
        changed = {name: getattr(at, name) * factor for name, factor in scaled.items()}
        return _cell(what_if, replace(at, **changed), speed).total_time_ms

    rows = [
        Sensitivity(
            parameter="bandwidth",
            less_total_time_ms=total_ms(max_bandwidth_bytes_per_s=less),
            more_total_time_ms=total_ms(max_bandwidth_bytes_per_s=more),
        ),
        Sensitivity(
            parameter="downtime-limit",
            less_total_time_ms=total_ms(downtime_limit_ms=less),
            more_total_time_ms=total_ms(downtime_limit_ms=more),
        ),
        Sensitivity(
            parameter="writes",
            less_total_time_ms=total_ms(speed=less),
            more_total_time_ms=total_ms(speed=more),
        ),
    ]
    if what_if.capture.private_pages:
        rows.append(
            Sensitivity(
                parameter="private-rate",
                less_total_time_ms=total_ms(private_rate_pps=less),
                more_total_time_ms=total_ms(private_rate_pps=more),
            )
        )
    return tuple(sorted(rows, key=lambda row: -_change_ms(row, cell)))


def _change_ms(row: Sensitivity, cell: Cell) -> float:
    """The larger of the two changes; not converging is the largest of all."""
    totals = (row.less_total_time_ms, row.more_total_time_ms)
    base = cell.total_time_ms or 0.0
    return max(float("inf") if total is None else abs(total - base) for total in totals)
