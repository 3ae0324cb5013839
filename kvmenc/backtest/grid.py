"""The table that the 2023 rule was published with: reproduced, then planned by QEMU's own rule."""

from __future__ import annotations

import math
from importlib import resources
from typing import TYPE_CHECKING, Literal

import msgspec
from msgspec import Struct

from kvmenc.backtest.result import Cell, Cells, Grid
from kvmenc.backtest.rule2023 import Rule2023
from kvmenc.capture import BlockFacts, Capture, CurvePoint
from kvmenc.plan import Parameters, make_plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from kvmenc.backtest.result import Why
    from kvmenc.backtest.rounds import Rounds
    from kvmenc.plan import Plan

__all__ = ["compare_grid"]

_HOUR_MS = 3_600_000.0
#: The highest downtime limit that QEMU takes stands for an unlimited one.
_UNLIMITED_MS = 2_000_000.0
#: On the wire in QEMU: 8 bytes of header and one of content.
_ZERO_PAGE_BYTES = 9


class _Bandwidth(Struct, frozen=True):
    """A row: what the table's author reads its label as, and what network people do."""

    label: str
    bytes_per_s: float
    decimal_bytes_per_s: float


class _Downtime(Struct, frozen=True):
    """A column."""

    label: str
    ms: float | None


class _Published(Struct, frozen=True):
    """What the cover letter of the series holds: a sample of the guest's pages, and the table.

    Attributes:
        schema: ``kvmenc.backtest-grid/1``.
        source: where it was published.
        page_size: bytes.
        total_pages: of the guest.
        sampled_pages: of these, drawn at random.
        sampled_zero_pages: of those drawn.
        periods_ms: since the sample was clean.
        sampled_dirty_pages: of those drawn, after each period.
        bandwidths: the table's rows. Its Mbps are 1024 * 1024 bits.
        downtimes: its columns; null: no limit.
        seconds: predicted, rounded up; null: does not converge.
    """

    schema: Literal["kvmenc.backtest-grid/1"]
    source: str
    page_size: int
    total_pages: int
    sampled_pages: int
    sampled_zero_pages: int
    periods_ms: tuple[float, ...]
    sampled_dirty_pages: tuple[int, ...]
    bandwidths: tuple[_Bandwidth, ...]
    downtimes: tuple[_Downtime, ...]
    seconds: tuple[tuple[int | None, ...], ...]


def compare_grid() -> Grid:
    """Fill the table by the rule that made it, and by kvmenc's plan of the same guest."""
    data = (resources.files("kvmenc.backtest") / "data" / "gudkov2023.json").read_bytes()
    published = msgspec.json.decode(data, type=_Published)
    cells = tuple(_cells(published, _capture(published)))
    return Grid(published.source, _count(cells), cells)


def _count(cells: Sequence[Cell]) -> Cells:
    def same(seconds: Callable[[Cell], int | None]) -> int:
        return sum(seconds(it) == it.published_seconds for it in cells)

    return Cells(
        all=len(cells),
        reproduced=same(lambda it: it.rule2023_seconds),
        reproduced_with_9_bytes=same(lambda it: _seconds(_sum(it.rule2023_ms, it.zero_byte_ms))),
        reproduced_with_1000=same(lambda it: it.with_1000_seconds),
        same_second=same(lambda it: it.kvmenc_seconds),
        flips=sum(it.flips for it in cells),
    )


def _capture(published: _Published) -> Capture:
    """The sampled guest, each page drawn standing for ``scale``; here that is a whole number."""
    scale = published.total_pages // published.sampled_pages
    zero_pages = published.sampled_zero_pages * scale
    points = zip(published.periods_ms, published.sampled_dirty_pages, strict=True)
    return Capture(
        source="sample of A. Gudkov, 28 Feb 2023",
        private_source="nothing is private",
        page_size=published.page_size,
        blocks=(BlockFacts("pc.ram", published.total_pages, 0, zero_pages, 0),),
        curve=tuple(CurvePoint(ms, 0, pages * scale) for ms, pages in points),
    )


def _cells(published: _Published, capture: Capture) -> Iterator[Cell]:
    for bandwidth, row in zip(published.bandwidths, published.seconds, strict=True):
        for downtime, seconds in zip(published.downtimes, row, strict=True):
            yield _cell(capture, bandwidth, downtime, seconds)


def _cell(
    capture: Capture, bandwidth: _Bandwidth, downtime: _Downtime, published: int | None
) -> Cell:
    rule, limit_ms = Rule2023.of(capture), math.inf if downtime.ms is None else downtime.ms
    rounds = rule.rounds(bandwidth.bytes_per_s, limit_ms)
    rule_ms = _total(rounds)
    nine_ms = _total(rule.rounds(bandwidth.bytes_per_s, limit_ms, _ZERO_PAGE_BYTES))
    decimal_ms = _total(rule.rounds(bandwidth.decimal_bytes_per_s, limit_ms))
    plan = _plan(capture, bandwidth, downtime)
    plan_ms = plan.total_time_ms
    return Cell(
        bandwidth=bandwidth.label,
        downtime_limit=downtime.label,
        published_seconds=published,
        rule2023_seconds=_seconds(rule_ms),
        rule2023_ms=rule_ms,
        rule2023_rounds=len(rounds.ms) if rounds else None,
        kvmenc_seconds=_seconds(plan_ms),
        kvmenc_ms=plan_ms,
        kvmenc_rounds=None if plan_ms is None else len(plan.rounds),
        zero_byte_ms=_difference(nine_ms, rule_ms),
        other_ms=_difference(plan_ms, nine_ms),
        with_1000_seconds=_seconds(decimal_ms),
        flips=(plan_ms is None) != (rule_ms is None),
        why=_why(plan, rounds),
    )


def _plan(capture: Capture, bandwidth: _Bandwidth, downtime: _Downtime) -> Plan:
    """Within the rule's own time limit of an hour."""
    parameters = Parameters(
        max_bandwidth_bytes_per_s=bandwidth.bytes_per_s,
        downtime_limit_ms=_UNLIMITED_MS if downtime.ms is None else downtime.ms,
        time_limit_ms=_HOUR_MS,
    )
    return make_plan(capture, parameters)


def _why(plan: Plan, rounds: Rounds | None) -> Why:
    if rounds is None and plan.verdict != "converges":
        return "neither"
    if rounds is None or len(rounds.ms) > 1:
        return "rounds"
    limit_ms = plan.inputs.downtime_limit_ms
    threshold_bytes = plan.inputs.max_bandwidth_bytes_per_s * limit_ms / 1000
    whole_bytes = plan.guest.pages * plan.guest.page_size
    return "pending-zero" if threshold_bytes < whole_bytes else "window"


def _total(rounds: Rounds | None) -> float | None:
    return rounds.total_ms if rounds else None


def _seconds(ms: float | None) -> int | None:
    """As the table rounds: up to whole ms, then up to whole seconds, which is up to the second."""
    return None if ms is None else math.ceil(ms / 1000)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _difference(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other
