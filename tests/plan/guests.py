"""Captured guests for the tests of the planner."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from kvmenc.capture import BlockFacts, Capture, CurvePoint

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.plan import Parameters

GIB_PAGES = 2**18

#: (ms, private pages, shared pages)
Points = list[tuple[float, int, int]]


def guest(npages: int, private: int, points: Points, zero: int | None = None) -> Capture:
    """A guest of one block."""
    return capture_of([BlockFacts("pc.ram", npages, private, zero, 0)], points)


def capture_of(blocks: Sequence[BlockFacts], points: Points) -> Capture:
    return Capture(
        source="a test guest",
        private_source="a test",
        blocks=tuple(blocks),
        curve=tuple(CurvePoint(*point) for point in points),
    )


def changed(parameters: Parameters, field: str, value: object) -> Parameters:
    """One parameter, by its name."""
    wanted: dict[str, Any] = {field: value}
    return replace(parameters, **wanted)


@st.composite
def curves(draw: st.DrawFn, private: int, shared: int) -> Points:
    """A curve that a guest with so many pages of each class may have.

    It flattens, as that of any guest that does not change its ways: a page that is dirty already
    cannot be dirtied again.
    """
    lengths = draw(st.lists(st.sampled_from([50, 100, 500, 2000]), min_size=1, max_size=5))
    times = [float(ms) for ms in itertools.accumulate(lengths)]
    columns = [_flattening(draw, lengths, limit) for limit in (private, shared)]
    return list(zip(times, *columns, strict=True))


def _flattening(draw: st.DrawFn, lengths: list[int], limit: int) -> list[int]:
    # Most guests dirty little: the eighth power makes small shares likely.
    share = st.floats(0, 1).map(lambda x: x**8)
    slopes = sorted((limit * draw(share) / ms for ms in lengths), reverse=True)
    steps = (slope * ms for slope, ms in zip(slopes, lengths, strict=True))
    return [min(limit, int(pages)) for pages in itertools.accumulate(steps)]


@st.composite
def captures(draw: st.DrawFn) -> Capture:
    """Any guest: some private, some zero pages, any curve."""
    npages = draw(st.sampled_from([1, 100, 5000, 2**18, 2**21]))
    private = int(npages * draw(st.sampled_from([0, 0.1, 0.5, 1])))
    zero = draw(st.sampled_from([None, 0, 0.5, 0.9]))
    zero_pages = None if zero is None else int((npages - private) * zero)
    return guest(npages, private, draw(curves(private, npages - private)), zero_pages)
