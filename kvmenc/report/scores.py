"""Errors of three predictors over all runs, and the targets, in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from kvmenc.backtest.result import Share
from kvmenc.plan.interval import KNIFE_EDGE
from kvmenc.report.terminal import bullet, columns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from kvmenc.backtest.result import Backtest, Predictor, Spread, Summary, Target

__all__ = ["PREDICTOR_NAMES", "bounded", "percent", "print_summary", "print_targets"]

PREDICTOR_NAMES: dict[Predictor, str] = {
    "kvmenc": "kvmenc",
    "rule2023": "2023 rule",
    "geometric": "geometric",
}
#: A larger error says nothing more.
_MOST_PERCENT = 999
#: A larger number has no place.
_MOST = 99_999
_ROWS: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    ("verdicts right", lambda it: f"{it.verdicts_right} of {it.runs}"),
    ("wrong outside the band", lambda it: str(it.verdicts_wrong_outside_band)),
    ("total time, % off", lambda it: _spread(it.total_time)),
    ("  within 3 % or 100 ms", lambda it: _share(it.total_time_within)),
    ("after the bulk, % off", lambda it: _spread(it.after_bulk)),
    ("transferred, % off", lambda it: _spread(it.transferred)),
    ("syncs within 1", lambda it: _share(Share(it.syncs_within_1, it.syncs))),
    ("downtime (TCP), % off", lambda it: _spread(it.downtime)),
    ("  in ms, median", lambda it: _number(it.downtime_median_ms)),
    ("  within 20 ms or 20 %", lambda it: _share(it.downtime_within)),
)


def percent(error: float) -> float:
    """Two digits are enough."""
    return round(error) if abs(error) >= 10 else round(error, 1)


def bounded(error: float, sign: Literal["", "+"] = "") -> str:
    """An error in per cent, with its sign if that is wanted, in at most six characters."""
    return f"{percent(error):{sign}}" if abs(error) <= _MOST_PERCENT else f">{_MOST_PERCENT}"


def print_summary(result: Backtest, console: Console) -> None:
    """Each predictor's errors over all runs, beside each other."""
    names = (PREDICTOR_NAMES[it.predictor] for it in result.summary)
    table = columns("field", *names, whole={"field"})
    table.columns[0].header = ""
    for label, cell in _ROWS:
        table.add_row(label, *map(cell, result.summary))
    console.print(table)
    for line in _remarks(result):
        console.print(bullet(line))


def _remarks(result: Backtest) -> Iterator[str]:
    yield (
        "% off: median / 90th percentile (runs), without sign, where the verdict is right; "
        "setting up is in none of the times"
    )
    if result.confidence.scenarios_in_band.hold:
        yield (
            "the band: where kvmenc says that it is chance, by a probability of "
            f"{' to '.join(map(str, KNIFE_EDGE))}"
        )
    if result.confidence.brier is not None:
        yield (
            f"Brier score of all {result.confidence.runs_stated} stated probabilities: "
            f"{result.confidence.brier:.2g}"
        )
    if result.audit.spread_percent is not None:
        yield (
            "from run to run of a scenario, total time differs by "
            f"{percent(result.audit.spread_percent)} % (median)"
        )


def _share(share: Share) -> str:
    return f"{share.hold} of {share.of}" if share.of else "-"


def _spread(spread: Spread | None) -> str:
    if not spread:
        return "-"
    return f"{bounded(spread.median_percent)} / {bounded(spread.p90_percent)} ({spread.runs})"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


def print_targets(targets: Sequence[Target], console: Console) -> None:
    """What was asked, beside what it came to."""
    table = columns("field", "measured", "target", "over", "note")
    table.columns[0].header = ""
    for it in targets:
        measured = "-" if it.measured is None else _with_unit(it.measured, it)
        table.add_row(it.what, measured, _bound(it), str(it.over) if it.over else "-", _result(it))
    console.print(table)
    few = next((it for it in targets if it.what == "scenarios" and not it.met), None)
    if few:
        most = _digits(few.least or 0)
        console.print(bullet(f"asked of {most} scenarios or more: of fewer these say little"))


def _bound(it: Target) -> str:
    if it.least is not None and it.most is not None:
        return f"{_digits(it.least)}-{_with_unit(it.most, it)}"
    if it.least is not None:
        return f"{'>' if it.strict else '>='} {_with_unit(it.least, it)}"
    return f"{'<' if it.strict else '<='} {_with_unit(it.most or 0, it)}"


def _result(it: Target) -> str:
    if it.missed_by is None:
        return "-" if it.met is None else "met"
    return f"missed by {_with_unit(it.missed_by, it)}"


def _with_unit(value: float, it: Target) -> str:
    return f"{_digits(value)} {it.unit}".rstrip()


def _digits(value: float) -> str:
    """Three of them, and never an exponent."""
    if value > _MOST:
        return f">{_MOST}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
