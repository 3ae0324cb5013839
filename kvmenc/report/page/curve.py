"""The curve: how many pages were written at least once within a time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import units
from kvmenc.report.page.elements import disclosed, elided_rows, legend, section, table, tag
from kvmenc.report.plot import MOST_STEPS, Series, TimeAxis, round_step
from kvmenc.report.show import device_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from xml.etree.ElementTree import Element

    from kvmenc.capture import Capture, CurvePoint

__all__ = ["curve_section"]

_NAMES = {"private": "private", "shared": "shared", "devices": "only by devices, estimated"}
#: Across and down; the drawing is stretched to the window, its lines and letters are not.
_WIDTH, _HEIGHT = 600, 240
#: Of the width, between two named times.
_APART = 0.18
#: Room above for the uppermost number, of the height.
_HEADROOM = 0.08


def curve_section(capture: Capture) -> Element:
    """The curve as a picture and as a table."""
    curves = dict(_curves(capture))
    seen = {name: it for name, it in curves.items() if max(it.pages)}
    said = [tag("p", device_line(capture.device))] if capture.device else []
    text = (
        "Pages written at least once within a time, by the class they had. A page written a "
        "thousand times counts once, so the curve flattens where the guest writes the same pages "
        "again."
    )
    if not seen:
        return section("curve", "Dirty pages over time", tag("p", "No page was written."), *said)
    return section(
        "curve",
        "Dirty pages over time",
        tag("p", text),
        legend({name: _NAMES[name] for name in seen}),
        tag("figure", _drawing(seen)),
        *said,
        disclosed("The curve as a table", _as_table(capture)),
    )


def _curves(capture: Capture) -> Iterator[tuple[str, Series]]:
    """By class of their colour."""
    ms = [point.ms for point in capture.curve]
    yield "private", Series("p", ms, [point.private_pages for point in capture.curve])
    yield "shared", Series("s", ms, [point.shared_pages for point in capture.curve])
    if it := capture.device:
        yield (
            "devices",
            Series("d", [at.ms for at in it.points], [sum(at.pages) for at in it.points]),
        )


def _drawing(curves: Mapping[str, Series]) -> Element:
    """Scales in percent and lines in a picture that is stretched, so any width is filled."""
    axis = TimeAxis.over(list(curves.values()), _WIDTH)
    step_pages = round_step(max(max(it.pages) for it in curves.values()) / MOST_STEPS)
    steps = math.ceil(max(max(it.pages) for it in curves.values()) / step_pages)
    marks = dict(_pages_scale(step_pages, steps))
    lines = [_line(name, it, axis, step_pages * steps) for name, it in curves.items()]
    return tag(
        "svg",
        tag("title", f"Pages written over time: {', '.join(curves)}"),
        *(tag("line", x1="0", x2="100%", y1=y, y2=y, class_="scale") for y in marks.values()),
        *_time_scale(axis),
        tag(
            "svg",
            *lines,
            viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
            preserveAspectRatio="none",
            width="100%",
            height=_HEIGHT,
        ),
        *(tag("text", name, x="2", y=y - 4, class_="number") for name, y in marks.items()),
        class_="chart",
        width="100%",
        height=_HEIGHT + 24,
        role="img",
    )


def _y(share: float) -> float:
    return _HEIGHT * (1 - share * (1 - _HEADROOM))


def _line(name: str, curve: Series, axis: TimeAxis, most_pages: int) -> Element:
    ms = axis.times_ms()
    ms = ms[ms <= curve.ms[-1] * (1 + 1e-9)]
    pages = np.interp(ms, [0.0, *curve.ms], [0.0, *curve.pages])
    points = (
        f"{axis.place(at) * _WIDTH:.1f},{_y(value / most_pages):.1f}"
        for at, value in zip(ms.tolist(), pages.tolist(), strict=True)
    )
    return tag("polyline", points=" ".join(points), class_=f"line {name}")


def _pages_scale(step_pages: int, steps: int) -> Iterator[tuple[str, float]]:
    """Numbers and where they stand; they are written over the lines, or could not be read."""
    for step in range(steps + 1):
        unit = " pages" if step == steps else ""
        yield f"{step * step_pages:,}{unit}", _y(step / steps)


def _time_scale(axis: TimeAxis) -> Iterator[Element]:
    """A mark at each round time, and a name where there is room."""
    named = -1.0
    for ms in axis.round_ms():
        place = axis.place(ms) if ms else 0.0
        x = f"{place * 100:.2f}%"
        yield tag("line", x1=x, x2=x, y1=_HEIGHT, y2=_HEIGHT + 5, class_="scale")
        if place - named < _APART and named >= 0:
            continue
        named = place
        anchor = "start" if place < _APART / 2 else "end" if place > 1 - _APART / 2 else "middle"
        name = units.format_time(ms) if ms else "0"
        yield tag("text", name, x=x, y=_HEIGHT + 19, text_anchor=anchor, class_="number")


def _as_table(capture: Capture) -> Element:
    headings = ("within", "private", "shared")
    rows = elided_rows(capture.curve, len(headings), lambda _, it: [_point(it)])
    return table("Pages written within a time", headings, rows)


def _point(it: CurvePoint) -> tuple[str, str, str]:
    return units.format_time(it.ms), f"{it.private_pages:,}", f"{it.shared_pages:,}"
