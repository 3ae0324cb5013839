"""A timeline as a sequence picture: SVG, time going down, an arrow for what one tells another.

It brings its own white ground, so it reads the same on a dark page, and says in words what colours
say.
"""

from __future__ import annotations

import functools
import re
from typing import IO, TYPE_CHECKING, NamedTuple

from kvmenc.atomic import check_writable, write_atomically
from kvmenc.errors import InputError
from kvmenc.ordering.hostcode import Call
from kvmenc.ordering.pages import Act
from kvmenc.report.svgparts import SMALL, svg_head, svg_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from kvmenc.ordering.timeline import Timeline, TimelineStep

__all__ = ["draw_into", "draw_timeline", "made_directory"]

_WIDTH, _MARGIN, _TOP, _ROW = 760, 14, 92, 42
_GUEST, _HOST, _WRONG, _GREY = "#0b5394", "#38761d", "#cc0000", "#555"


class _Lanes(NamedTuple):
    """Where everybody stands: x of each."""

    guest: int = 110
    kernel: int = 300
    host: int = 490
    destination: int = 680


_LANES = _Lanes()


def made_directory(path: Path) -> Path:
    """A directory for pictures, made if it is not there.

    Raises:
        InputError: it cannot be made, or be written into.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_writable(path / "picture.svg")
    except FileExistsError as error:
        raise InputError(f"{path}: no pictures can be written there: it is no folder") from error
    except OSError as error:
        raise _unwritable(path, error) from error
    return path


def draw_into(directory: Path, timelines: Iterable[Timeline]) -> list[Path]:
    """Write a picture of each, named after protocol and guest.

    Raises:
        InputError: it cannot be written there.
    """
    written = []
    for timeline in timelines:
        path = directory / f"{_slug(timeline.protocol)}--{_slug(timeline.order)}.svg"
        try:
            write_atomically(path, functools.partial(_write, draw_timeline(timeline)))
        except OSError as error:
            raise _unwritable(directory, error) from error
        written.append(path)
    return written


def _write(picture: str, file: IO[bytes]) -> None:
    file.write(picture.encode())


def _unwritable(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: no pictures can be written there: {error.strerror}")


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.replace("+", "and").lower()).strip("-")


def draw_timeline(timeline: Timeline) -> str:
    """A document of its own."""
    bottom = _TOP + _ROW * len(timeline.steps) + 20
    height = bottom + 64
    lines = [
        *svg_head(_WIDTH, height, f"{timeline.protocol}; guest: {timeline.order}"),
        *_arrowheads(),
        svg_text(_MARGIN, 22, f"Host: {timeline.protocol}", size=14, weight="bold"),
        svg_text(_MARGIN, 40, f"Guest: {timeline.order}. {_setting(timeline)}", ink=_GREY),
        *_heads(bottom),
        *_rounds(timeline),
        *(line for at, step in enumerate(timeline.steps) for line in _step(at, step)),
        *_end(timeline, bottom),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _setting(timeline: Timeline) -> str:
    first = ", ".join("private" if it else "shared" for it in timeline.private_at_first)
    return f"{timeline.setting}; at first {first}"


def _arrowheads() -> Iterator[str]:
    yield "<defs>"
    for name, colour in (("guest", _GUEST), ("host", _HOST)):
        yield (
            f'<marker id="{name}" markerWidth="9" markerHeight="8" refX="8" refY="4" orient="auto">'
            f'<path d="M0 0L9 4L0 8z" fill="{colour}"/></marker>'
        )
    yield "</defs>"


def _heads(bottom: int) -> Iterator[str]:
    for name, x in _LANES._asdict().items():
        yield f'<path d="M{x} {_TOP - 22}V{bottom}" stroke="#bbb" stroke-dasharray="3 3"/>'
        yield svg_text(x, _TOP - 28, name, anchor="middle", weight="bold")


def _rounds(timeline: Timeline) -> Iterator[str]:
    """A line where a round begins, with its name at the edge."""
    before: int | None = 0
    for at, step in enumerate(timeline.steps):
        if step.round != before:
            y = _TOP + _ROW * at - 10
            name = "stopped" if step.round is None else f"round {step.round}"
            yield f'<path d="M{_MARGIN} {y}H{_WIDTH - _MARGIN}" stroke="#ddd"/>'
            yield svg_text(_MARGIN, y + 14, name, ink=_GREY, size=SMALL)
            before = step.round


def _step(at: int, step: TimelineStep) -> Iterator[str]:
    y = _TOP + _ROW * at + 12
    start, end, who = _arrow(step)
    colour = _HOST if who == "host" else _GUEST
    words = f"{step.actor}: {step.does}" if who == "guest" else step.does
    if start == end:
        yield f'<circle cx="{start}" cy="{y}" r="5" fill="{colour}"/>'
        left, anchor = start + 10, "start"
    else:
        yield (
            f'<path d="M{start} {y}H{end}" stroke="{colour}" stroke-width="1.5" '
            f'marker-end="url(#{who})"/>'
        )
        left, anchor = (start + end) // 2, "middle"
    yield svg_text(left, y - 5, words, anchor=anchor, ink=colour, size=SMALL)
    yield svg_text(left, y + 13, step.result, anchor=anchor, ink=_GREY, size=SMALL)


def _arrow(step: TimelineStep) -> tuple[int, int, str]:
    """From where to where it goes, and whose it is."""
    if step.actor == "host":
        if step.does in set(Call):
            return _LANES.host, _LANES.kernel, "host"
        nothing = not step.result or step.result.startswith(("not", "left"))
        return _LANES.host, _LANES.host if nothing else _LANES.destination, "host"
    own = step.does == Act.FLIP
    return _LANES.guest, _LANES.guest if own else _LANES.kernel, "guest"


def _end(timeline: Timeline, bottom: int) -> Iterator[str]:
    page = f"page {timeline.page}" if len(timeline.private_at_first) > 1 else "the page"
    after = f", after {', '.join(timeline.then)}" if timeline.then else ""
    yield svg_text(
        _MARGIN,
        bottom + 18,
        f"Of {page}{after} the guest should read {timeline.source_reads}, and reads"
        f" {timeline.destination_reads} at the destination.",
        ink=_WRONG,
        weight="bold",
    )
    key = (
        "v: written last. s(), d(): encrypted with the source's, the destination's guest key;"
        " s'(), d'(): decrypted."
    )
    yield svg_text(_MARGIN, bottom + 38, key, ink=_GREY, size=SMALL)
