"""Scored runs for the tests, as if they had been predicted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from kvmenc.backtest.result import PREDICTORS, FieldScore, Predicted, RunScore
from kvmenc.plan.compare import FieldPair
from kvmenc.plan.interval import KNIFE_EDGE
from kvmenc.plan.result import Interval

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kvmenc.backtest.result import Field


def scored(
    values: Mapping[Field, tuple[float, float | None]],
    rivals: Mapping[Field, float] | None = None,
    /,
    **changes: object,
) -> RunScore:
    """A run that converged, as everyone said.

    Args:
        values: of each field, what it was and what kvmenc said.
        rivals: what the others said; as kvmenc, where they are not given.
        changes: replace its attributes.
    """
    run = RunScore(
        name="a run",
        source="a test",
        scenario="a scenario",
        transport=None,
        profile="qemu-7.2",
        converged=True,
        lasted_ms=None,
        setup_ms=0.0,
        bulk_ms=None,
        converges=dict.fromkeys(PREDICTORS, True),
        interval=None,
        fields=tuple(_field(name, *both, rivals or {}) for name, both in values.items()),
        rounds=(),
        assumptions=(),
        missing=(),
        notes=(),
    )
    return msgspec.structs.replace(run, **changes)


def _field(
    field: Field, actual: float, value: float | None, rivals: Mapping[Field, float]
) -> FieldScore:
    said = {"kvmenc": value}
    pairs = {
        name: FieldPair(field, said.get(name, rivals.get(field, value)), actual)
        for name in PREDICTORS
    }
    predicted = {name: Predicted(it.predicted, it.error_percent) for name, it in pairs.items()}
    return FieldScore(field, actual, predicted)


def stated(
    probability: float, low_ms: float | None = None, high_ms: float | None = None
) -> Interval:
    """A plan's own certainty."""
    return Interval(
        low_ms=low_ms,
        high_ms=high_ms,
        probability_converges=probability,
        knife_edge=KNIFE_EDGE[0] < probability < KNIFE_EDGE[1],
        basis="windows",
        plans=20,
    )
