"""One field of a migration in words, predicted or actual."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units

if TYPE_CHECKING:
    from kvmenc.plan.compare import Field

__all__ = ["field_name", "field_value"]

_TIMES: frozenset[Field] = frozenset({"total-time", "bulk_ms", "after_bulk_ms", "downtime"})
_SIZES: frozenset[Field] = frozenset(
    {"transferred", "remaining", "precopy-bytes", "downtime-bytes"}
)


def field_name(field: Field) -> str:
    """As query-migrate spells it; what it does not print, in words."""
    return field.removesuffix("_ms").replace("_", " ")


def field_value(field: Field, value: float | None) -> str:
    """With its unit; counts and bytes are rounded to whole ones."""
    if value is None:
        return "-"
    if field in _TIMES:
        return units.format_time(value)
    return units.format_size(round(value)) if field in _SIZES else f"{round(value):,}"
