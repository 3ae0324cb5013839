"""A plan beside what QEMU's query-migrate said: one set of fields, and one comparison.

The fields have query-migrate's own names. Two that it does not print end in ``_ms``: the time until
the second sync, in which each page is sent once (the bulk stage), and the time after it. Setting up
is part of QEMU's ``total-time`` and of a plan's: here it is taken off both, so that sending is what
is compared.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar, get_args

from msgspec import Meta, Struct

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from kvmenc.plan.result import Plan, RamStats

__all__ = [
    "END_FIELDS",
    "FIELDS",
    "Answer",
    "Field",
    "FieldPair",
    "RamAnswer",
    "beside",
    "compare",
    "happened",
    "planned",
]

Field = Literal[
    "total-time",
    "bulk_ms",
    "after_bulk_ms",
    "downtime",
    "transferred",
    "normal",
    "duplicate",
    "dirty-sync-count",
    "remaining",
    "precopy-bytes",
    "downtime-bytes",
]
FIELDS: tuple[Field, ...] = get_args(Field)

#: Those that query-migrate tells at the end of a migration.
END_FIELDS: tuple[Field, ...] = (
    "total-time",
    "downtime",
    "transferred",
    "normal",
    "duplicate",
    "dirty-sync-count",
    "precopy-bytes",
    "downtime-bytes",
)

#: A plan that gives up this near to the time limit has gone all the way.
_AT_THE_LIMIT = 0.01

Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Count = Annotated[int, Meta(ge=0, le=2**62)]


class Round(Protocol):
    """From one sync to the next."""

    @property
    def stopped(self) -> bool:
        """Whether the guest was."""


One = TypeVar("One", bound=Round)
Other = TypeVar("Other", bound=Round)


def beside(one: Sequence[One], other: Sequence[Other]) -> list[tuple[One | None, Other | None]]:
    """The rounds of two side by side: live ones by number, and the stopped ones last."""
    pairs: list[tuple[One | None, Other | None]] = []
    for stopped in (False, True):
        ours = [it for it in one if it.stopped == stopped]
        theirs = [it for it in other if it.stopped == stopped]
        pairs += itertools.zip_longest(ours, theirs)
    return pairs


class RamAnswer(Struct, frozen=True, rename="kebab"):
    """What is compared of ``ram`` in QEMU's answer; null: not known.

    Attributes:
        transferred: bytes sent.
        dirty_sync_count: how often QEMU synced.
        normal: pages sent with content, each time.
        duplicate: zero pages, each time that one was sent.
        remaining: bytes left to send.
        precopy_bytes: sent while the guest ran.
        downtime_bytes: sent while it was stopped.
    """

    transferred: Count | None = None
    dirty_sync_count: Count | None = None
    normal: Count | None = None
    duplicate: Count | None = None
    remaining: Count | None = None
    precopy_bytes: Count | None = None
    downtime_bytes: Count | None = None


class Answer(Struct, frozen=True, rename="kebab"):
    """What is compared of QEMU's answer to query-migrate, which may be given whole.

    Attributes:
        status: as QEMU calls it; ``active`` where it was given up: then the last answer before.
        total_time: ms, setting up included.
        setup_time: ms.
        downtime: ms.
        ram: of the RAM.
    """

    status: str
    total_time: Milliseconds | None = None
    setup_time: Milliseconds = 0.0
    downtime: Milliseconds | None = None
    ram: RamAnswer = RamAnswer()

    @property
    def lasted_ms(self) -> float | None:
        """From start to end, or to when it was given up, setting up excluded."""
        return None if self.total_time is None else max(0.0, self.total_time - self.setup_time)


class FieldPair(Struct, frozen=True):
    """One field of a migration.

    Attributes:
        field: its name.
        predicted: in the unit that query-migrate has it in (ms, bytes, pages, a number of syncs);
            null where nothing is said of it, as of one that does not converge.
        actual: of QEMU, in the same unit; null where it is not known.
    """

    field: Field
    predicted: float | None
    actual: float | None

    @property
    def error_percent(self) -> float | None:
        """Of the prediction, against what happened; None where one of both is missing, or is 0."""
        if self.predicted is None or not self.actual:
            return None
        return (self.predicted - self.actual) / self.actual * 100


def compare(
    predicted: Mapping[Field, float],
    actual: Mapping[Field, float],
    fields: Sequence[Field] = FIELDS,
) -> tuple[FieldPair, ...]:
    """Put both beside each other, a pair for each of ``fields``, in their order."""
    return tuple(FieldPair(field, predicted.get(field), actual.get(field)) for field in fields)


def planned(plan: Plan) -> dict[Field, float]:
    """What a plan says; of a migration given up only at the time limit itself."""
    answer, limit_ms = plan.query_migrate, plan.inputs.time_limit_ms
    given_up = plan.total_time_ms is None
    if given_up and answer.total_time < (limit_ms or float("inf")) * (1 - _AT_THE_LIMIT):
        return {}
    rounds_ms = [it.ms for it in plan.rounds]
    bulk_ms = rounds_ms[0] if rounds_ms else None
    times = None if given_up else sum(rounds_ms), bulk_ms, plan.downtime_ms
    return _values(answer.ram, times, given_up=given_up)


def happened(answer: Answer, bulk_ms: float | None = None) -> dict[Field, float]:
    """What became of a migration; when one was given up is no result of it.

    Args:
        answer: query-migrate's, at the end.
        bulk_ms: from the start to the second sync, setting up excluded.
    """
    given_up = answer.status == "active"
    times = None if given_up else answer.lasted_ms, bulk_ms, answer.downtime
    return _values(answer.ram, times, given_up=given_up)


def _values(
    ram: RamStats | RamAnswer, times: tuple[float | None, ...], *, given_up: bool
) -> dict[Field, float]:
    """All that is known; what remains is a result only where it was given up."""
    total_ms, bulk_ms, downtime_ms = times
    values: dict[Field, float | None] = {
        "total-time": total_ms,
        "bulk_ms": bulk_ms,
        "after_bulk_ms": _after(total_ms, bulk_ms),
        "downtime": downtime_ms,
        "transferred": ram.transferred,
        "normal": ram.normal,
        "duplicate": ram.duplicate,
        "dirty-sync-count": ram.dirty_sync_count,
        "remaining": ram.remaining if given_up else None,
        "precopy-bytes": ram.precopy_bytes,
        "downtime-bytes": ram.downtime_bytes,
    }
    return {field: value for field, value in values.items() if value is not None}


def _after(total_ms: float | None, bulk_ms: float | None) -> float | None:
    return None if total_ms is None or bulk_ms is None else max(0.0, total_ms - bulk_ms)
