"""A back-test as data: what ``kvmenc backtest --json`` prints, schema ``kvmenc.backtest/1``."""

from __future__ import annotations

from typing import Literal, get_args

from msgspec import Struct

from kvmenc.backtest.run import Transport
from kvmenc.plan.compare import Field
from kvmenc.plan.result import Counts, Interval

__all__ = [
    "PREDICTORS",
    "RIVALS",
    "Audit",
    "Backtest",
    "Cell",
    "Cells",
    "Confidence",
    "Field",
    "FieldScore",
    "Grid",
    "Predicted",
    "Predictor",
    "Ratio",
    "RoundFigures",
    "RoundScore",
    "RunScore",
    "ScenarioScore",
    "Share",
    "Spread",
    "Summary",
    "Target",
    "UsedProfile",
]

Predictor = Literal["kvmenc", "rule2023", "geometric"]
PREDICTORS: tuple[Predictor, ...] = get_args(Predictor)
RIVALS: tuple[Predictor, ...] = PREDICTORS[1:]

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
        all: how many there are in the table.
        reproduced: how many of which the rule gives the published second.
        reproduced_with_9_bytes: the same with a zero page of 9 bytes, as QEMU sends it.
        reproduced_with_1000: how many with Mbps of 1000 * 1000 bits; the table's are 1024 * 1024.
        same_second: how many of which kvmenc's plan gives the published second.
        flips: how many of which kvmenc's plan gives the opposite verdict.
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
    """What one predictor says of one field; nulls where it says nothing.

    Attributes:
        value: in the unit that query-migrate has the field in: ms, bytes, pages, a number of syncs.
        error_percent: of the value, with its sign.
    """

    value: float | None
    error_percent: float | None


class FieldScore(Struct, frozen=True):
    """One field of a migration: what it was, and what was predicted.

    Attributes:
        field: its name.
        actual: in the unit that query-migrate has it in: ms, bytes, pages, a number of syncs.
        predicted: by each predictor.
    """

    field: Field
    actual: float
    predicted: dict[Predictor, Predicted]


class RoundFigures(Struct, frozen=True):
    """A round: its length, and pages and bytes sent in it, by road."""

    ms: float
    pages: Counts
    bytes: Counts


class RoundScore(Struct, frozen=True):
    """A round as it was, and as kvmenc's plan has it; null where one has no such round.

    Attributes:
        stopped: with the guest stopped: the last one, whatever its number.
    """

    stopped: bool
    actual: RoundFigures | None
    predicted: RoundFigures | None


class RunScore(Struct, frozen=True, kw_only=True):
    """One migration that really happened, predicted.

    Attributes:
        name: of the run.
        source: where its figures are from.
        scenario: runs of one are repeats of each other.
        transport: how the bytes went; null where that is not known.
        profile: whose rules kvmenc followed.
        converged: whether it did.
        lasted_ms: until it ended or was given up, setting up excluded; null where it is not known.
        setup_ms: what setting up took.
        bulk_ms: until the second sync, setting up excluded; null likewise.
        converges: whether each predictor says so; empty where the run could not be predicted.
        interval: what kvmenc's plan states of its own certainty; null likewise.
        fields: the figures that are known of it.
        rounds: of a run that tells them; empty where kvmenc's verdict is wrong.
        assumptions: what was taken for granted where the source does not say it.
        missing: what the source would have to say for a prediction.
        notes: what else a reader should know.
    """

    name: str
    source: str
    scenario: str
    transport: Transport | None
    profile: str
    converged: bool
    lasted_ms: float | None
    setup_ms: float
    bulk_ms: float | None
    converges: dict[Predictor, bool]
    interval: Interval | None
    fields: tuple[FieldScore, ...]
    rounds: tuple[RoundScore, ...]
    assumptions: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def knife_edge(self) -> bool:
        """By kvmenc's plan, it is chance whether it converges."""
        return self.interval is not None and self.interval.knife_edge


class ScenarioScore(Struct, frozen=True, kw_only=True):
    """The repeats of one scenario that could be predicted.

    Attributes:
        name: of the scenario.
        runs: how many repeats.
        converged: how many of these did.
        converges: of these, those of which each predictor says so.
        probability_converges: as kvmenc states it, 0 to 1, the mean over repeats; null where it
            does not.
        knife_edge: that probability is in the band.
        spread_percent: of total time, from the shortest to the longest repeat that converged, over
            their mean; null with fewer than two.
        after_bulk_percent: of the time, mean over repeats, that was after the second sync, also
            where it was given up; null where no repeat says.
        shortest_ms: of the repeats, setting up excluded; null likewise.
        fields: means over the repeats that have the field: what it was, and what was predicted.
    """

    name: str
    runs: int
    converged: int
    converges: dict[Predictor, int]
    probability_converges: float | None
    knife_edge: bool
    spread_percent: float | None
    after_bulk_percent: float | None
    shortest_ms: float | None
    fields: tuple[FieldScore, ...]


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


class Share(Struct, frozen=True):
    """How many of how many.

    Attributes:
        hold: how many of which it is true.
        of: how many were asked.
    """

    hold: int
    of: int

    @property
    def percent(self) -> float | None:
        """Which share it is; None of none."""
        return self.hold / self.of * 100 if self.of else None


class Summary(Struct, frozen=True, kw_only=True):
    """One predictor over all runs that could be predicted.

    A figure of a run counts where it is known and the predictor's verdict is right.

    Attributes:
        predictor: which.
        runs: predicted.
        verdicts_right: how many of these.
        verdicts_wrong_outside_band: how many are wrong where kvmenc does not call it chance.
        total_time: errors; null where no run has both.
        total_time_within: runs off by 3 % or 100 ms at most, whichever is more.
        after_bulk: errors of the time after the second sync; null likewise.
        downtime: errors over TCP; null likewise.
        downtime_median_ms: the median of these in milliseconds; null likewise.
        downtime_within: runs over TCP off by 20 ms or 20 % at most, whichever is more.
        transferred: errors; null likewise.
        syncs: how many runs converged in which dirty-sync-count is known and predicted.
        syncs_within_1: how many of these are off by one at most.
    """

    predictor: Predictor
    runs: int
    verdicts_right: int
    verdicts_wrong_outside_band: int
    total_time: Spread | None
    total_time_within: Share
    after_bulk: Spread | None
    downtime: Spread | None
    downtime_median_ms: float | None
    downtime_within: Share
    transferred: Spread | None
    syncs: int
    syncs_within_1: int


class Confidence(Struct, frozen=True, kw_only=True):
    """Whether kvmenc is as sure as it should be.

    Attributes:
        scenarios_in_band: those of which kvmenc says that it is chance whether they converge.
        runs_in_band: how many of their runs a probability is stated of.
        brier_in_band: over these, the mean square of what is between the probability stated and
            what happened, 1 or 0; a number from 0 to 1, and 0.25 for always saying one half. Null
            of none.
        runs_stated: how many runs in all a probability is stated of.
        brier: the mean square over these, 0 to 1.
        interval_holds: converged runs with an interval, and those within it.
        interval_width_percent: their median width over the run's total time; null of none.
    """

    scenarios_in_band: Share
    runs_in_band: int
    brier_in_band: float | None
    runs_stated: int
    brier: float | None
    interval_holds: Share
    interval_width_percent: float | None


class Ratio(Struct, frozen=True, kw_only=True):
    """kvmenc's error over a rival's, in runs where both have one.

    Attributes:
        field: of which.
        rival: whose.
        runs: how many.
        kvmenc_percent: median error.
        rival_percent: likewise.
        ratio: of the two, a pure number; null where the rival's is 0.
    """

    field: Field
    rival: Predictor
    runs: int
    kvmenc_percent: float
    rival_percent: float
    ratio: float | None


class Audit(Struct, frozen=True, kw_only=True):
    """How hard the scenarios are.

    Attributes:
        scenarios: predicted.
        least_runs: the fewest repeats of one; null without any.
        mostly_after_bulk: those that spend over half of their time after the bulk stage.
        ten_syncs: those with ten syncs or more, in the mean.
        shortest_ms: the shortest run; null where none says.
        spread_percent: median over scenarios of the spread of their total times; null likewise.
    """

    scenarios: int
    least_runs: int | None
    mostly_after_bulk: Share
    ten_syncs: Share
    shortest_ms: float | None
    spread_percent: float | None


class Target(Struct, frozen=True, kw_only=True):
    """What was asked of the planner, and what it came to.

    Attributes:
        what: in words.
        unit: of the numbers; empty where they are counts or pure numbers.
        measured: in ``unit``; null where no run has what is needed.
        least: the measured must be no less, in ``unit``; null: no bound.
        most: it must be no more, in ``unit``; null: no bound.
        strict: the bound itself does not do.
        over: how many runs, scenarios or intervals it was measured over.
        met: null where nothing was measured.
        missed_by: how far off the bound, in ``unit``; null where it is met or nothing was measured.
    """

    what: str
    unit: str
    measured: float | None
    least: float | None = None
    most: float | None = None
    strict: bool = False
    over: int
    met: bool | None
    missed_by: float | None


class UsedProfile(Struct, frozen=True):
    """Whose rules kvmenc followed.

    Attributes:
        name: of the profile.
        proven: compared with real migrations by that very QEMU.
        runs: predicted by it.
    """

    name: str
    proven: bool
    runs: int


class Backtest(Struct, frozen=True, kw_only=True):
    """Predictions against what happened.

    Attributes:
        schema: ``kvmenc.backtest/1``.
        profile: whose rules kvmenc followed; several are separated by commas.
        profiles: the same, each with its runs.
        grid: the table of 2023; null where runs were given.
        runs: in the order given.
        scenarios: the runs that could be predicted, repeats together, in that order.
        summary: a predictor each.
        confidence: of kvmenc's probabilities and intervals.
        ratios: of kvmenc's errors to its rivals'.
        audit: of the scenarios.
        targets: what was asked of the planner; empty for the published runs, which it is not asked
            of.
    """

    schema: Literal["kvmenc.backtest/1"] = "kvmenc.backtest/1"
    profile: str
    profiles: tuple[UsedProfile, ...]
    grid: Grid | None
    runs: tuple[RunScore, ...]
    scenarios: tuple[ScenarioScore, ...]
    summary: tuple[Summary, ...]
    confidence: Confidence
    ratios: tuple[Ratio, ...]
    audit: Audit
    targets: tuple[Target, ...]
