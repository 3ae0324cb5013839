"""A migration as data: what was predicted, what happened; schema ``kvmenc.migrate/1``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import msgspec

from kvmenc.plan.compare import END_FIELDS, Answer, FieldPair, RamAnswer, compare, happened, planned
from kvmenc.plan.result import Plan

if TYPE_CHECKING:
    from kvmenc.migrate.run import Progress

__all__ = ["FieldPair", "MigrateReport"]


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
    fields: tuple[FieldPair, ...]
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
        fields = compare(planned(plan), happened(_answer(end)), END_FIELDS)
        return cls(uri=uri, outcome=outcome, reason=why, fields=fields, plan=plan)


def _answer(end: Progress) -> Answer:
    names = RamAnswer.__struct_fields__ if end.ram else ()
    return Answer(
        status=end.status,
        total_time=end.total_time,
        setup_time=end.setup_time,
        downtime=end.downtime,
        ram=RamAnswer(**{name: getattr(end.ram, name) for name in names}),
    )
