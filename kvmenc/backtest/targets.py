"""What was asked of the planner, beside what it came to."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from kvmenc.backtest.result import RIVALS, Share, Target
from kvmenc.backtest.summary import RATIO_FIELDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.backtest.result import (
        Audit,
        Confidence,
        Field,
        Predictor,
        Ratio,
        Spread,
        Summary,
    )

__all__ = ["Bound", "Measured", "target", "targets"]

_NOBODY = Share(0, 0)
_RIVALS: dict[Predictor, str] = {"rule2023": "2023 rule's", "geometric": "geometric's"}
_FIELDS: dict[Field, str] = {
    "total-time": "total time",
    "after_bulk_ms": "after bulk",
    "transferred": "transferred",
    "dirty-sync-count": "syncs",
    "downtime": "downtime",
}


class Bound(NamedTuple):
    """What a number is to be.

    Attributes:
        unit: of the number; empty for counts and pure numbers.
        least: no less.
        most: no more.
        strict: not the bound itself either.
    """

    unit: str
    least: float | None = None
    most: float | None = None
    strict: bool = False


class Measured(NamedTuple):
    """A number, and over how many runs or scenarios it was measured; None over none."""

    value: float | None
    over: int


def target(what: str, bound: Bound, measured: Measured) -> Target:
    """Whether a number is what it is to be, and if not, how far off."""
    unit, least, most, strict = bound
    value, over = measured
    off, met = 0.0, None
    if value is not None:
        too_little = 0.0 if least is None else least - value
        off = max(too_little, 0.0 if most is None else value - most, 0.0)
        met = not off and not (strict and value in {least, most})
    return Target(
        what=what,
        unit=unit,
        measured=value,
        least=least,
        most=most,
        strict=strict,
        over=over,
        met=met,
        missed_by=off if met is False else None,
    )


def targets(
    summary: Sequence[Summary], confidence: Confidence, ratios: Sequence[Ratio], audit: Audit
) -> tuple[Target, ...]:
    """A row for each number that was asked for."""
    ours = next((it for it in summary if it.predictor == "kvmenc"), None)
    return (
        *_errors(ours),
        *_verdicts(ours, confidence),
        *_ratios(ratios),
        *_audit(audit),
    )


def _errors(ours: Summary | None) -> Iterator[Target]:
    """A median within 3 % or 100 ms is at least half of the runs within that."""
    total_within = ours.total_time_within if ours else _NOBODY
    syncs = Share(ours.syncs_within_1, ours.syncs) if ours else _NOBODY
    downtime_within = ours.downtime_within if ours else _NOBODY
    total, after = (ours.total_time, ours.after_bulk) if ours else (None, None)
    sent = ours.transferred if ours else None
    yield target("total time within 3 % or 100 ms", Bound("%", least=50), _share(total_within))
    yield target("total time, 90th percentile", Bound("%", most=10), _p90(total))
    yield target("time after the bulk, median", Bound("%", most=10), _median(after))
    yield target("transferred, median", Bound("%", most=2), _median(sent))
    yield target("syncs within 1", Bound("%", least=90), _share(syncs))
    yield target("downtime within 20 ms or 20 %", Bound("%", least=100), _share(downtime_within))


def _verdicts(ours: Summary | None, sure: Confidence) -> Iterator[Target]:
    wrong = Measured(ours.verdicts_wrong_outside_band, ours.runs) if ours else Measured(None, 0)
    in_band = Measured(sure.brier_in_band, sure.runs_in_band)
    holds = sure.interval_holds
    width = Measured(sure.interval_width_percent, holds.of)
    yield target("wrong verdicts outside the band", Bound("", most=0), wrong)
    yield target("scenarios in the band", Bound("%", most=15), _share(sure.scenarios_in_band))
    yield target("Brier score in the band", Bound("", most=0.25, strict=True), in_band)
    yield target("90 % interval holds", Bound("%", least=80, most=97), _share(holds))
    yield target("its width, median", Bound("%", most=15), width)


def _ratios(ratios: Sequence[Ratio]) -> Iterator[Target]:
    known = {(it.field, it.rival): Measured(it.ratio, it.runs) for it in ratios}
    for rival in RIVALS:
        for field in RATIO_FIELDS:
            what = f"error / {_RIVALS[rival]}: {_FIELDS[field]}"
            measured = known.get((field, rival), Measured(None, 0))
            yield target(what, Bound("", most=1 / 3), measured)


def _audit(audit: Audit) -> Iterator[Target]:
    of = audit.scenarios
    shortest_s = None if audit.shortest_ms is None else audit.shortest_ms / 1000
    after, many = _share(audit.mostly_after_bulk), _share(audit.ten_syncs)
    yield target("scenarios", Bound("", least=40), Measured(of, of))
    yield target("fewest repeats of one", Bound("", least=3), Measured(audit.least_runs, of))
    yield target("scenarios mostly after the bulk", Bound("%", least=50), after)
    yield target("scenarios of ten syncs or more", Bound("%", least=100 / 3), many)
    yield target("shortest run", Bound("s", least=5, strict=True), Measured(shortest_s, of))


def _share(share: Share) -> Measured:
    return Measured(share.percent, share.of)


def _median(spread: Spread | None) -> Measured:
    return Measured(spread.median_percent, spread.runs) if spread else Measured(None, 0)


def _p90(spread: Spread | None) -> Measured:
    return Measured(spread.p90_percent, spread.runs) if spread else Measured(None, 0)
