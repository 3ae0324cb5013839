"""Sound captures: one with everything in it, and arbitrary ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np
from hypothesis import strategies as st

from kvmenc.capture import (
    BitmapKind,
    BlockFacts,
    Capture,
    Costs,
    CurvePoint,
    DeviceCurve,
    DevicePoint,
    EndedBy,
    Provenance,
    SlotFacts,
    SyncSample,
    Window,
    WindowPoint,
    curve_of,
)
from kvmenc.memory.words import from_pages

if TYPE_CHECKING:
    from kvmenc.memory.words import Words

    Bitmaps = dict[tuple[BitmapKind, str], Words]


def sound_capture() -> Capture:
    """Every field is used."""
    points = (
        WindowPoint(50, 0.5, (10, 0), (5, 0)),
        WindowPoint(100, 0.75, (15, 0), (8, 0)),
    )
    return Capture(
        source="scratch guest on fake",
        private_source="bitmap v7",
        private_reason="it was there",
        blocks=(
            BlockFacts("pc.ram", 1000, 600, 100, 0, 90, 120),
            BlockFacts("pc.bios", 64, 64, None, 64),
        ),
        curve=(CurvePoint(50, 10, 5, 0.5), CurvePoint(100, 15, 8, 0.75)),
        samples=(SyncSample(50, 50, 10, 5, 0), SyncSample(100, 50, 9, 5, 2)),
        slots=(
            SlotFacts(0, 3, 0x100, 1000, "pc.ram", 0, readonly=False, log_dirty=True),
            SlotFacts(1, None, 0xE0, 63, "pc.bios", 1, readonly=True, log_dirty=None),
        ),
        windows=(Window(0, 0.25, "another-reader", points),),
        device=DeviceCurve((DevicePoint(80, (7, 0), 5, 9),), 0.95, 500, 1000),
        costs=Costs(log_start_ms=3, log_start_ms_per_gib=1, stop_count=2, stop_max_us=80),
        provenance=Provenance(
            captured_at="2026-11-23T18:00:00Z", kvmenc_version="0.1.0", how="peek", kernel="6.12"
        ),
        notes=("one", "two"),
    )


def sound_bitmaps() -> Bitmaps:
    """Some bitmaps of ``sound_capture``, not all."""
    return {
        ("dirty", "pc.ram"): from_pages(np.arange(0, 1000, 13), 1000),
        ("private", "pc.ram"): from_pages(np.arange(600), 1000),
        ("private", "pc.bios"): from_pages(np.arange(64), 64),
    }


# What str.isprintable takes, without drawing anything else.
printable = st.characters(exclude_categories=("C", "Z"), include_characters=" ")
texts = st.text(printable, min_size=1, max_size=20)
times = st.floats(0, 1e6)
shares = st.floats(0, 1)


def growing_ms(size: int) -> st.SearchStrategy[list[float]]:
    steps = st.floats(0.001, 1e4)
    return st.lists(steps, min_size=size, max_size=size).map(lambda it: np.cumsum(it).tolist())


@st.composite
def windows_of(draw: st.DrawFn, sizes: list[int], start_ms: float) -> Window:
    """Pages written in each RAMBlock grow; at each look any share of them is private."""
    ms = draw(growing_ms(draw(st.integers(1, 6))))
    written = [sorted(draw(st.integers(0, size)) for _ in ms) for size in sizes]
    points = []
    for i, at_ms in enumerate(ms):
        now = [pages[i] for pages in written]
        private = tuple(int(pages * draw(shares)) for pages in now)
        shared = tuple(a - b for a, b in zip(now, private, strict=True))
        points.append(WindowPoint(at_ms, draw(times), private, shared))
    ended_by = draw(st.sampled_from(get_args(EndedBy)))
    return Window(start_ms, draw(times), ended_by, tuple(points))


@st.composite
def devices_of(draw: st.DrawFn, sizes: list[int]) -> DeviceCurve:
    points = []
    for ms in draw(growing_ms(draw(st.integers(1, 3)))):
        pages = tuple(draw(st.integers(0, size)) for size in sizes)
        low, high = draw(st.integers(0, sum(pages))), draw(st.integers(sum(pages), sum(sizes)))
        points.append(DevicePoint(ms, pages, low, high))
    population = draw(st.integers(0, sum(sizes)))
    return DeviceCurve(
        tuple(points),
        draw(st.floats(0.5, 0.999)),
        draw(st.integers(0, population)),
        population,
    )


@st.composite
def captures(draw: st.DrawFn) -> tuple[Capture, Bitmaps]:
    """A sound capture and some bitmaps of it."""
    sizes = draw(st.lists(st.integers(1, 300), min_size=1, max_size=4))
    names = draw(st.lists(texts, min_size=len(sizes), max_size=len(sizes), unique=True))
    bitmaps: Bitmaps = {}
    blocks = []
    for name, npages in zip(names, sizes, strict=True):
        drawn: dict[BitmapKind, set[int]] = {it: _some(draw, npages) for it in get_args(BitmapKind)}
        drawn["zero"] -= drawn["private"]
        for kind in draw(st.sets(st.sampled_from(get_args(BitmapKind)))):
            pages = np.array(sorted(drawn[kind]), np.int64)
            bitmaps[kind, name] = from_pages(pages, npages)
        private, zero = len(drawn["private"]), len(drawn["zero"])
        blocks.append(BlockFacts(name, npages, private, zero, draw(st.integers(0, npages))))
    starts = draw(st.lists(st.integers(0, 10**6), max_size=3, unique=True))
    windows = tuple(draw(windows_of(sizes, float(start))) for start in sorted(starts))
    capture = Capture(
        source=draw(texts),
        private_source=draw(texts),
        blocks=tuple(blocks),
        curve=curve_of(windows) or (CurvePoint(1.0, 0, 0),),
        windows=windows,
        device=draw(st.none() | devices_of(sizes)),
        notes=tuple(draw(st.lists(texts, max_size=3))),
    )
    return capture, bitmaps


def _some(draw: st.DrawFn, npages: int) -> set[int]:
    return draw(st.sets(st.integers(0, npages - 1), max_size=npages))
