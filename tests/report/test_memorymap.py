"""Cells against a count of every page."""

from __future__ import annotations

import io
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.memory.words import from_pages, ones, set_ranges, zeros
from kvmenc.report.memorymap import BlockMap, print_maps
from kvmenc.report.terminal import Terminal

if TYPE_CHECKING:
    from kvmenc.capture import BitmapKind

TIB_PAGES = 2**28


def printed(*maps: BlockMap) -> list[str]:
    file = io.StringIO()
    print_maps(maps, 4096, Terminal(file=file, width=80, markup=False, highlight=False))
    return [line.rstrip() for line in file.getvalue().splitlines()][2:]


def slow_share(ones_of_cell: int, pages: int) -> str:
    percent = 100 * ones_of_cell / pages
    if percent in {0, 100}:
        return " " if percent == 0 else "#"
    if percent < 10:
        return "." if percent < 1 else ":"
    return str(int(percent // 10))


@given(data=st.data(), npages=st.integers(1, 70_000))
def test_cells_and_their_characters_against_a_count_of_every_page(
    data: st.DataObject, npages: int
) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    pages = np.flatnonzero(rng.random(npages) < data.draw(st.floats(0, 1)))
    it = BlockMap.of("ram", npages, {"dirty": from_pages(pages, npages)})

    assert it.cell_pages.bit_count() == 1
    sizes = [min(it.cell_pages, npages - at) for at in range(0, npages, it.cell_pages)]
    assert len(sizes) <= (64 if npages <= 2**14 else 256)
    assert it.cell_pages == 1 or len(sizes) > (32 if npages <= 2**14 else 128)
    counts = np.bincount(pages // it.cell_pages, minlength=len(sizes)).tolist()
    assert it.cells == {"dirty": counts}
    assert "".join(it.rows("dirty")) == "".join(map(slow_share, counts, sizes))
    assert all(len(row) <= 64 for row in it.rows("dirty"))


def test_a_class_that_is_all_or_none_is_said_in_words() -> None:
    it = BlockMap.of("rom", 100, {"dirty": zeros(100), "private": ones(100)})
    assert printed(it) == ["rom, 400 KiB: dirty none, private all"]


def test_what_is_mixed_is_drawn_private_first() -> None:
    words = from_pages(np.arange(0, 128), 6400)
    kinds: list[BitmapKind] = ["dirty", "zero", "private"]
    lines = printed(BlockMap.of("ram", 6400, dict.fromkeys(kinds, words)))
    assert lines == [
        "ram, 25 MiB: a cell is 512 KiB",
        *(f"  {kind:<7} |#{' ' * 49}|" for kind in ("private", "zero", "dirty")),
    ]


@pytest.mark.parametrize(
    ("dirty_pages", "character"),
    [(0, " "), (1, "."), (2, "."), (3, ":"), (25, ":"), (26, "1"), (255, "9"), (256, "#")],
)
def test_a_character_stands_for_what_the_legend_says(dirty_pages: int, character: str) -> None:
    it = BlockMap.of("ram", 2**14, {"dirty": from_pages(np.arange(dirty_pages), 2**14)})
    assert it.cell_pages == 256
    assert next(it.rows("dirty"))[0] == character


def test_a_map_of_1_tib_is_drawn_within_a_second() -> None:
    words = zeros(TIB_PAGES)
    rng = np.random.default_rng(1)
    starts = rng.integers(0, TIB_PAGES - 100, 100_000)
    set_ranges(words, starts, starts + 100)
    kinds: list[BitmapKind] = ["dirty", "zero", "private"]
    start = time.perf_counter()
    lines = printed(BlockMap.of("ram", TIB_PAGES, dict.fromkeys(kinds, words)))
    assert time.perf_counter() - start < 1
    assert len(lines) == 1 + 3 * 4


def test_the_middle_of_many_maps_is_left_out_and_counted() -> None:
    maps = [BlockMap.of(f"rom{i}", 1, {"dirty": zeros(1)}) for i in range(40)]
    lines = printed(*maps)
    assert len(lines) == 15
    assert "(26 more)" in lines
