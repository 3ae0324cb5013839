"""A migration as data: what was predicted, what happened; schema ``kvmenc.migrate/1``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import msgspec
from msgspec import UNSET

from kvmenc.plan.result import Plan

if TYPE_CHECKING:
    from kvmenc.migrate.run import Progress

__all__ = ["FieldPair", "MigrateReport"]

#: Of ``ram``, those that a plan predicts and that mean something when all is over.
_RAM_FIELDS = (
    "transferred",
    "normal",
    "duplicate",
    "dirty_sync_count",
    "precopy_bytes",
    "downtime_bytes",
)


class FieldPair(msgspec.Struct, frozen=True):
    """One field of query-migrate.

    Attributes:
        field: its name there.
        predicted: by the plan; null where the plan has none, as it does not converge.
        actual: of QEMU; null where QEMU does not tell.
    """

    field: str
    predicted: float | None
    actual: float | None


class MigrateReport(msgspec.Struct, frozen=True, kw_only=True):
    """How a migration went.

    Attributes:
        schema: ``kvmenc.migrate/1``.
        uri: where to.
        outcome: how it ended.
        reason: why it did not complete; empty if it did.
        fields: what was predicted and what happened.
        plan: the prediction.
    """

    schema: Literal["kvmenc.migrate/1"] = "kvmenc.migrate/1"
    uri: str
    outcome: Literal["completed", "failed", "cancelled"]
    reason: str
    fields: list[FieldPair]
    plan: Plan

    @classmethod
    def of(cls, uri: str, plan: Plan, end: Progress, reason: str = "") -> Self:
        """Put both beside each other."""
        outcome: Literal["completed", "failed", "cancelled"]
        match end.status:
            case "completed" | "cancelled":
                outcome = end.status
            case _:
                outcome = "failed"
        why = "" if outcome == "completed" else reason or end.error_desc or outcome
        return cls(uri=uri, outcome=outcome, reason=why, fields=list(_pairs(plan, end)), plan=plan)


def _pairs(plan: Plan, end: Progress) -> list[FieldPair]:
    predicted = plan.query_migrate
    downtime = predicted.downtime
    pairs = [
        FieldPair("total-time", plan.total_time_ms, end.total_time),
        FieldPair("downtime", None if downtime is UNSET else downtime, end.downtime),
    ]
    for name in _RAM_FIELDS:
        actual = getattr(end.ram, name) if end.ram else None
        pairs.append(FieldPair(name.replace("_", "-"), getattr(predicted.ram, name), actual))
    return pairs
