"""Curves over time in plain characters, to be read in a terminal, a pipe or a mail."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import units

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["MOST_STEPS", "SEVERAL", "Series", "TimeAxis", "plot", "round_step"]

#: Drawn where several curves run through one place.
SEVERAL = "*"
#: Of an axis.
MOST_STEPS = 6
_MOST_ROWS = 12


@dataclass(frozen=True, slots=True)
class Series:
    """A curve that starts at (0 ms, 0 pages) and is straight between its points.

    Attributes:
        mark: the character that draws it.
        ms: of its points, growing.
        pages: of its points.
    """

    mark: str
    ms: Sequence[float]
    pages: Sequence[float]


def plot(curves: Sequence[Series], width: int) -> list[str]:
    """Draw curves: pages upwards, time to the right, logarithmic unless there is little of it.

    Looks are dense at first, where a curve bends most; a logarithmic scale gives them the room.

    Args:
        curves: at least one, with at least one point.
        width: characters in a line.

    Returns:
        Lines: the drawing, its time axis, the axis' labels.
    """
    most = max(max(curve.pages) for curve in curves)
    step_pages = round_step(most / MOST_STEPS)
    steps = math.ceil(most / step_pages)
    step_rows = _MOST_ROWS // steps
    margin = len(f"{step_pages * steps:,}")
    axis = TimeAxis.over(curves, width - margin - 2)
    grid = _draw(curves, axis.times_ms(), step_rows / step_pages, step_rows * steps)
    lines = []
    for row in range(step_rows * steps, -1, -1):
        step, between = divmod(row, step_rows)
        label = "" if between else f"{step_pages * step:,}"
        lines.append(f"{label:>{margin}} {'|' if between else '+'}{''.join(grid[row])}".rstrip())
    ticks, names = axis.lines()
    return [*lines, f"{'':{margin}} +{ticks}", f"{'':{margin}}  {names}".rstrip()]


def round_step(least: float) -> int:
    """The first of 1, 2, 5, 10, 20, 50 ... that is at least ``least``."""
    power = 1
    while power * 10 < least:
        power *= 10
    return next(power * digit for digit in (1, 2, 5, 10) if power * digit >= least)


def _draw(
    curves: Sequence[Series], ms: NDArray[np.float64], rows_a_page: float, last_row: int
) -> list[list[str]]:
    """Characters by row, the lowest first, and column; zero pages are on the lowest row."""
    grid = [[" "] * ms.size for _ in range(last_row + 1)]
    for curve in curves:
        pages = np.interp(ms, [0.0, *curve.ms], [0.0, *curve.pages])
        rows = np.rint(pages * rows_a_page).astype(int)
        for column in np.flatnonzero(ms <= curve.ms[-1] * (1 + 1e-9)).tolist():
            row = grid[rows[column]]
            row[column] = curve.mark if row[column] == " " else SEVERAL
    return grid


@dataclass(frozen=True, slots=True)
class TimeAxis:
    """Columns for times between two, ``logarithmic`` or not."""

    first_ms: float
    last_ms: float
    columns: int
    logarithmic: bool

    @classmethod
    def over(cls, curves: Sequence[Series], columns: int) -> TimeAxis:
        """From the first point of all curves to the last, or from 0 where that is no long way."""
        first_ms = min(curve.ms[0] for curve in curves)
        last_ms = max(curve.ms[-1] for curve in curves)
        if last_ms < 4 * first_ms:
            return cls(0.0, last_ms, columns, logarithmic=False)
        return cls(first_ms, last_ms, columns, logarithmic=True)

    def times_ms(self) -> NDArray[np.float64]:
        """The time of each column."""
        space = np.geomspace if self.logarithmic else np.linspace
        return space(self.first_ms, self.last_ms, self.columns)

    def place(self, ms: float) -> float:
        """Where a time is: 0 in the first column, 1 in the last."""
        if not self.logarithmic:
            return ms / self.last_ms
        return math.log(ms / self.first_ms) / math.log(self.last_ms / self.first_ms)

    def lines(self) -> tuple[str, str]:
        """The axis with a mark at each round time, and below the names of those that have room."""
        ticks, names = ["-"] * self.columns, ""
        for ms in self.round_ms():
            column = int(np.argmin(np.abs(self.times_ms() - ms)))
            ticks[column] = "+"
            name = units.format_time(ms) if ms else "0"
            start = min(max(0, column - len(name) // 2), self.columns - len(name))
            if start >= len(names) + 2 or not names:
                names = f"{names:{start}}{name}"
        return "".join(ticks), names

    def round_ms(self) -> list[float]:
        """Round times on it, growing."""
        if not self.logarithmic:
            step = self.last_ms / 4
            return [step * i for i in range(5)]
        lowest = math.floor(math.log10(self.first_ms))
        highest = math.ceil(math.log10(self.last_ms))
        rounds = [
            digit * 10.0**power for power in range(lowest, highest + 1) for digit in (1, 2, 5)
        ]
        return [ms for ms in rounds if self.first_ms <= ms <= self.last_ms]
