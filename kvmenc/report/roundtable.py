"""Rounds as they were planned and as they were, pages by road, in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.report.terminal import columns, elided

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from kvmenc.plan.result import Counts

    Pair = tuple[Counts | None, Counts | None]

__all__ = ["rounds_table"]

_ROADS = ("normal", "zero", "encrypted")
_MOST_ROUNDS = 10


def rounds_table(pairs: Sequence[Pair], actual: str, *, stopped: bool) -> Table:
    """A road to a row: pages planned, and pages that went.

    Args:
        pairs: both of each round; None where one has no such round.
        actual: what the second of them is called.
        stopped: whether the last round is that of the stopped guest.
    """
    table = columns("round", "road", "planned", actual)
    names = [*map(str, range(1, len(pairs) + 1 - stopped)), *(["stopped"] * stopped)]
    for number, named in elided(list(zip(names, pairs, strict=True)), _MOST_ROUNDS):
        if named is None:
            table.add_row("...", f"({number} more)")
            continue
        name, pair = named
        for row, cells in enumerate(_by_road(pair)):
            table.add_row("" if row else name, *cells)
    return table


def _by_road(pair: Pair) -> list[tuple[str, str, str]]:
    """Road, planned and actual pages of each road that any went; at least one line."""
    rows = []
    for road in _ROADS:
        planned, went = (_pages(it, road) for it in pair)
        if not {planned, went} <= {"-", "0"}:
            rows.append((road, planned, went))
    return rows or [("-", "0", "0")]


def _pages(counts: Counts | None, road: str) -> str:
    return "-" if counts is None else f"{getattr(counts, road):,}"
