"""The rounds of a plan: a bar for the time of each road, beside the numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import units
from kvmenc.report.page.elements import (
    disclosed,
    elided_rows,
    legend,
    section,
    table,
    table_of,
    tag,
)
from kvmenc.report.terminal import elided, round_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from xml.etree.ElementTree import Element

    from kvmenc.plan.result import Counts, Plan, PlannedRound, Times
    from kvmenc.report.page.elements import Content

__all__ = ["rounds_section"]

#: Road, and the class whose pages go it: it has that colour everywhere on the page.
_ROADS = {"normal": "shared", "zero": "zero", "encrypted": "private"}
_ROAD_WORDS = {
    "normal": "normal: shared pages as they are",
    "zero": "zero: a mark in place of a page",
    "encrypted": "encrypted: private pages, through the firmware",
}
#: Beyond, the middle is left out.
_MOST_ROWS = 30


def rounds_section(plan: Plan) -> Element:
    """Each round with its bar; the roads in numbers behind it."""
    page_size = plan.guest.page_size
    used = [road for road in _ROADS if getattr(plan.totals.pages, road)]
    return section(
        "rounds",
        "Rounds",
        tag("p", "A round lasts from one sync to the next; a bar is its time, by road."),
        legend({_ROADS[road]: _ROAD_WORDS[road] for road in used}),
        _bars(plan.rounds, page_size),
        disclosed("The rounds by road, as a table", _by_road(plan)),
    )


def _bars(rounds: Sequence[PlannedRound], page_size: int) -> Element:
    """The first round sends all RAM and dwarfs the others, so it has a scale of its own."""
    parts = {"First round, all RAM": (rounds[:1], 1), "Later rounds": (rounds[1:], 2)}
    bodies = [_body(name, *part, page_size) for name, part in parts.items() if part[0]]
    headings = ("round", "time by road", "time", "dirty at its start", "sent", "limited by")
    return table_of("Rounds of the plan", headings, bodies, "rounds")


def _body(name: str, rounds: Sequence[PlannedRound], first: int, page_size: int) -> Element:
    full_ms = max(it.ms for it in rounds)
    scale = f"{name}: a full bar is {units.format_time(full_ms)}"
    rows = [tag("tr", tag("th", scale, colspan="6", scope="colgroup", class_="group"))]
    for number, one in elided(rounds, _MOST_ROWS):
        if one is None:
            rows.append(tag("tr", tag("th", f"({number} more)", colspan="6", scope="row")))
        else:
            rows.append(_row(one, first + number - 1, full_ms, page_size))
    return tag("tbody", *rows)


def _row(one: PlannedRound, number: int, full_ms: float, page_size: int) -> Element:
    cells: tuple[Content, ...] = (
        _bar(one, full_ms),
        units.format_time(one.ms),
        units.format_size(one.dirty_pages * page_size),
        units.format_size(one.bytes.total),
        one.bottleneck,
    )
    name = tag("th", round_name(one, number), scope="row")
    return tag("tr", name, *(tag("td", it) for it in cells))


def _bar(one: PlannedRound, full_ms: float) -> Element:
    """Decoration to whoever hears the page: the table behind it says the same in numbers."""
    parts, at = [], 0.0
    for road, name in _ROADS.items():
        share = getattr(one.ms_by_road, road) / full_ms * 100 if full_ms else 0.0
        if share:
            parts.append(
                tag("rect", x=f"{at:.3f}%", width=f"{share:.3f}%", height="100%", class_=name)
            )
        at += share
    return tag("svg", *parts, class_="bar", width="100%", height="14", aria_hidden="true")


def _by_road(plan: Plan) -> Element:
    headings = ("round", "road", "pages", "bytes", "time")
    rows = elided_rows(plan.rounds, len(headings), _road_rows, _MOST_ROWS)
    totals = plan.totals
    every = _roads("all", totals.pages, totals.bytes, totals.ms)
    return table("Pages, bytes and time by road", headings, [*rows, *every])


def _road_rows(number: int, one: PlannedRound) -> Iterator[tuple[str, ...]]:
    return _roads(round_name(one, number), one.pages, one.bytes, one.ms_by_road)


def _roads(name: str, pages: Counts, size: Counts, ms: Times) -> Iterator[tuple[str, ...]]:
    """A row for each road that pages went."""
    for road in _ROADS:
        if number := getattr(pages, road):
            size_bytes, road_ms = getattr(size, road), getattr(ms, road)
            yield (
                name,
                road,
                f"{number:,}",
                units.format_size(size_bytes),
                units.format_time(road_ms),
            )
