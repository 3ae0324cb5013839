"""A back-test as data: what ``kvmenc backtest --json`` prints, schema ``kvmenc.backtest/1``."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

__all__ = [
    "FIELDS",
    "PREDICTORS",
    "Backtest",
    "Cell",
    "Cells",
    "Field",
    "FieldScore",
    "Grid",
    "Predicted",
    "Predictor",
    "RunScore",
    "Spread",
    "Summary",
]

Predictor = Literal["kvmenc", "rule2023", "geometric"]
PREDICTORS: tuple[Predictor, ...] = get_args(Predictor)

Field = Literal[
    "total_time_ms",
    "downtime_ms",
    "transferred_bytes",
    "dirty_sync_count",
    "normal_pages",
    "duplicate_pages",
    "remaining_bytes",
]
FIELDS: tuple[Field, ...] = get_args(Field)

#: Why a cell differs.
#:
#: * ``neither``: both say that it does not converge.
#: * ``rounds``: QEMU sends a page that is written before its turn only once, and syncs as soon as
#:   less than the threshold is pending; the rule sends all that a round dirtied in the next one.
#: * ``pending-zero``: the rule sends all in the pause; to QEMU a zero page is pending as a whole
#:   one, and so its threshold is passed (an unlimited pause is 2000 s, its highest limit).
#: * ``window``: the rule sends all in the pause; QEMU first measures its bandwidth for 100 ms.
Why = Literal["neither", "rounds", "pending-zero", "window"]


class Cell(Struct, frozen=True, kw_only=True):
    """One bandwidth and downtime limit; null: does not converge.

    Attributes:
        bandwidth: as published.
        downtime_limit: as published.
        published_seconds: in the published table.
        rule2023_seconds: by the rule, rounded up as the table is.
        rule2023_ms: the same, not rounded.
        rule2023_rounds: sent, the stopped one included.
        kvmenc_seconds: by kvmenc's plan, rounded up likewise.
        kvmenc_ms: the same, not rounded.
        kvmenc_rounds: from sync to sync, the stopped one included; null likewise.
        zero_byte_ms: how much longer the rule's migration is when a zero page is sent as 9 bytes,
            as QEMU does; part of the difference.
        other_ms: the rest of the difference, kvmenc's less the rule's.
        with_1000_seconds: by the rule, with Mbps of 1000 * 1000 bits.
        flips: one converges and the other does not.
        why: where ``other_ms`` comes from.
    """

    bandwidth: str
    downtime_limit: str
    published_seconds: int | None
    rule2023_seconds: int | None
    rule2023_ms: float | None
    rule2023_rounds: int | None
    kvmenc_seconds: int | None
    kvmenc_ms: float | None
    kvmenc_rounds: int | None
    zero_byte_ms: float | None
    other_ms: float | None
    with_1000_seconds: int | None
    flips: bool
    why: Why


class Cells(Struct, frozen=True):
    """How many cells are so.

    Attributes:
        all: of the table.
        reproduced: the rule gives the published second.
        reproduced_with_9_bytes: the same with a zero page of 9 bytes, as QEMU sends it.
        reproduced_with_1000: the same with Mbps of 1000 * 1000 bits; the table's are 1024 * 1024.
        same_second: kvmenc's plan gives the published second.
        flips: kvmenc's plan gives the opposite verdict.
    """

    all: int
    reproduced: int
    reproduced_with_9_bytes: int
    reproduced_with_1000: int
    same_second: int
    flips: int


class Grid(Struct, frozen=True):
    """The published table, the rule that made it, and kvmenc's plan.

    Attributes:
        source: of the table.
        counts: of its cells.
        cells: by bandwidth, then downtime limit.
    """

    source: str
    counts: Cells
    cells: tuple[Cell, ...]


class Predicted(Struct, frozen=True):
    """What one predictor says of one field; nulls where it says nothing."""

    value: float | None
    error_percent: float | None


class FieldScore(Struct, frozen=True):
    """One field of query-migrate: what it was, and what was predicted."""

    field: Field
    actual: float
    predicted: dict[Predictor, Predicted]


class RunScore(Struct, frozen=True, kw_only=True):
    """One migration that really happened, predicted.

    Attributes:
        name: of the run.
        source: where its figures are from.
        converged: whether it did.
        converges: whether each predictor says so; empty where the run could not be predicted.
        fields: the figures that are known of it.
        assumptions: what was taken for granted where the source does not say it.
        missing: what the source would have to say for a prediction.
        notes: what else a reader should know.
    """

    name: str
    source: str
    converged: bool
    converges: dict[Predictor, bool]
    fields: tuple[FieldScore, ...]
    assumptions: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]


class Spread(Struct, frozen=True):
    """Errors of one field over runs, without their sign.

    Attributes:
        runs: how many have the field and a prediction of it.
        median_percent: half are at most this.
        p90_percent: nine tenths are at most this, by the nearest run.
    """

    runs: int
    median_percent: float
    p90_percent: float


class Summary(Struct, frozen=True, kw_only=True):
    """One predictor over all runs that could be predicted.

    Attributes:
        predictor: which.
        runs: predicted.
        verdicts_right: of these.
        total_time: errors; null where no run has both.
        downtime: likewise.
        transferred: likewise.
        syncs: runs in which dirty-sync-count is known and predicted.
        syncs_within_1: of these, those off by one at most.
    """

    predictor: Predictor
    runs: int
    verdicts_right: int
    total_time: Spread | None
    downtime: Spread | None
    transferred: Spread | None
    syncs: int
    syncs_within_1: int


class Backtest(Struct, frozen=True, kw_only=True):
    """Predictions against what happened.

    Attributes:
        schema: ``kvmenc.backtest/1``.
        profile: whose rules kvmenc followed.
        grid: the table of 2023; null where runs were given.
        runs: in the order given.
        summary: a predictor each.
    """

    schema: Literal["kvmenc.backtest/1"] = "kvmenc.backtest/1"
    profile: str
    grid: Grid | None
    runs: tuple[RunScore, ...]
    summary: tuple[Summary, ...]
