"""Zero pages of another process, counted and estimated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc.contents import Contents, count_zero_pages, zero
from kvmenc.memory.words import from_pages, ones
from tests.contents.target import target

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.contents.target import Target

NPAGES = 1000
ZERO_BUT_THERE = range(100, 140)
FILLED = range(200, 260)
ALL_ZERO = NPAGES - len(FILLED)


@pytest.fixture(scope="module", params=["anonymous", "memfd shared"])
def guest(request: pytest.FixtureRequest) -> Iterator[tuple[Target, Contents]]:
    with target(request.param, NPAGES) as it:
        it.write(dict.fromkeys(ZERO_BUT_THERE, 0))
        it.write({page: 1 + page % 255 for page in FILLED})
        with Contents(it.pid, it.layout) as contents:
            yield it, contents


@pytest.mark.parametrize("budget_pages", [100, NPAGES])
def test_the_count_is_exact_where_the_present_pages_fit_the_budget(
    guest: tuple[Target, Contents], budget_pages: int
) -> None:
    it, contents = guest
    found = count_zero_pages(contents, it.block, budget_pages, np.random.default_rng(1))
    assert found.exact
    assert found.words is not None
    filled = from_pages(np.array(FILLED), NPAGES)
    assert found.words.tolist() == (ones(NPAGES) & ~filled).tolist()
    assert (found.low_pages, found.pages, found.high_pages) == (ALL_ZERO,) * 3


def test_absent_pages_are_known_and_only_present_ones_estimated(
    guest: tuple[Target, Contents],
) -> None:
    it, contents = guest
    found = count_zero_pages(contents, it.block, 50, np.random.default_rng(1))
    assert not found.exact
    assert NPAGES - 100 <= found.low_pages < ALL_ZERO < found.high_pages < NPAGES


def test_a_block_too_large_to_look_at_is_sampled_at_random(
    guest: tuple[Target, Contents], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zero, "_LOOK_AT_ALL_PAGES", NPAGES - 1)
    it, contents = guest
    found = count_zero_pages(contents, it.block, 30, np.random.default_rng(1))
    assert not found.exact
    assert found.low_pages < ALL_ZERO < found.high_pages
    assert found.low_pages < NPAGES - 100, "or the absent pages were known"


@pytest.mark.parametrize("look_at_all_pages", [0, NPAGES])
def test_the_bounds_hold_nineteen_times_in_twenty(
    guest: tuple[Target, Contents], monkeypatch: pytest.MonkeyPatch, look_at_all_pages: int
) -> None:
    monkeypatch.setattr(zero, "_LOOK_AT_ALL_PAGES", look_at_all_pages)
    it, contents = guest
    found = [
        count_zero_pages(contents, it.block, 40, np.random.default_rng(seed)) for seed in range(200)
    ]
    assert sum(one.low_pages <= ALL_ZERO <= one.high_pages for one in found) >= 190


def test_a_page_with_any_byte_set_is_not_zero() -> None:
    rows = np.zeros((4096, 4096), np.uint8)
    np.fill_diagonal(rows, 1)
    assert not zero._is_zero(rows).any()
    assert zero._is_zero(np.zeros_like(rows)).all()
