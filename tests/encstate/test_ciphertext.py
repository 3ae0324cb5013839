"""The content test: what it calls shared surely is no ciphertext."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.encstate import ciphertext
from kvmenc.encstate.ciphertext import FALSE_SHARED_PROBABILITY, PageClass, classify, limits
from tests.encstate import pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

PRIVATE = PageClass.PRIVATE_OR_RANDOM


@cache
def random_pages() -> NDArray[np.uint8]:
    return pages.random(20_000)


@cache
def random_chi2() -> NDArray[np.float64]:
    whole = np.full(len(random_pages()), 256)
    return ciphertext._sums_of_squares(random_pages(), whole) / 16 - 4096


def chi2_upper_tail(chi2: float, degrees: int) -> float:
    """The regularised upper incomplete gamma function Q(degrees / 2, chi2 / 2), by its series."""
    shape, x = degrees / 2, chi2 / 2
    term = math.exp(shape * math.log(x) - x - math.lgamma(shape + 1))
    total, step = 0.0, 1
    while term > 1e-18:
        total += term
        term *= x / (shape + step)
        step += 1
    return 1 - total


@cache
def exact_distribution(nbytes: int) -> dict[int, float]:
    """P(sum of squared byte counts = s) for uniform bytes, added up cell by cell."""
    cells: dict[tuple[int, int], float] = {(0, 0): 1.0}
    for cell in range(256, 0, -1):
        grown: dict[tuple[int, int], float] = {}
        for (used, square), weight in cells.items():
            for count in range(nbytes - used + 1):
                if cell == 1 and used + count != nbytes:
                    continue
                p, free = 1 / cell, nbytes - used
                chance = math.comb(free, count) * p**count * (1 - p) ** (free - count)
                key = (used + count, square + count * count)
                grown[key] = grown.get(key, 0.0) + weight * chance
        cells = grown
    return {square: weight for (_, square), weight in cells.items()}


@pytest.mark.parametrize("false_alarm", [1e-1, 1e-3, 1e-6, FALSE_SHARED_PROBABILITY])
def test_limits_keep_their_promise_against_the_exact_distribution(false_alarm: float) -> None:
    exact = exact_distribution(16)
    low, high = limits(false_alarm)
    assert sum(exact.values()) == pytest.approx(1)
    assert sum(p for s, p in exact.items() if not low[1] <= s <= high[1]) <= false_alarm


@pytest.mark.parametrize("false_alarm", [0.5, 1e-1, 1e-2])
@pytest.mark.parametrize("blocks", [2, 16, 100, 256])
def test_limits_keep_their_promise_on_random_bytes(false_alarm: float, blocks: int) -> None:
    sample = np.zeros_like(random_pages()[:4000])
    sample[:, : blocks * 16] = random_pages()[:4000, : blocks * 16]
    sums = ciphertext._sums_of_squares(sample, np.full(len(sample), blocks))
    low, high = (side[blocks] for side in limits(false_alarm))
    assert np.mean((sums < low) | (sums > high)) <= false_alarm


def test_limits_of_a_whole_page_are_no_wider_than_needed() -> None:
    """At the same probability, a chi-square distribution would put the upper one at 449."""
    low, high = (side[256] / 16 - 4096 for side in limits(FALSE_SHARED_PROBABILITY))
    assert 110 < low < 125
    assert 450 < high < 495
    assert chi2_upper_tail(high, 255) < FALSE_SHARED_PROBABILITY / 2


def test_a_tebibyte_of_ciphertext_gives_less_than_a_thousandth_of_a_false_shared_page() -> None:
    assert FALSE_SHARED_PROBABILITY * 2**28 <= 1e-3


@pytest.mark.parametrize("share", [0.9, 0.5, 0.1, 0.01])
def test_chi_square_of_random_pages_has_the_quantiles_of_255_degrees(share: float) -> None:
    quantile = float(np.quantile(random_chi2(), 1 - share))
    spread = 4 * math.sqrt(share * (1 - share) / len(random_chi2()))
    assert chi2_upper_tail(quantile, 255) == pytest.approx(share, abs=spread + 0.002)


def test_no_random_page_is_called_shared() -> None:
    assert np.all(classify(random_pages()) == PRIVATE)


@pytest.mark.parametrize("plain", [pages.zeros, pages.text, pages.ramp, pages.counters])
def test_ciphertext_is_private_whatever_was_encrypted(
    plain: Callable[[int], NDArray[np.uint8]],
) -> None:
    assert np.all(classify(pages.encrypted(plain(500))) == PRIVATE)


@pytest.mark.parametrize(
    "kind",
    [pages.text, pages.log_lines, pages.code, pages.counters, pages.pointers, pages.ramp],
)
def test_plain_data_is_shared(kind: Callable[[int], NDArray[np.uint8]]) -> None:
    assert np.all(classify(kind(300)) == PageClass.SHARED)


def test_compressed_data_cannot_be_told_from_ciphertext() -> None:
    assert np.mean(classify(pages.compressed(100)) == PRIVATE) > 0.95


def test_zero_pages_are_a_class_of_their_own() -> None:
    assert np.all(classify(pages.zeros(100)) == PageClass.ZERO)


@pytest.mark.parametrize("offset", [0, 1, 15, 16, 2048, 4095])
def test_one_written_byte_makes_a_page_shared(offset: int) -> None:
    page = pages.zeros(1)
    page[0, offset] = 1
    assert classify(page)[0] == PageClass.SHARED


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 2**256 - 1), st.integers(0, 2**31))
def test_a_private_page_of_which_a_part_was_written_is_not_called_shared(
    written: int, seed: int
) -> None:
    """The guest wrote some blocks; the host's zeros are still in the others."""
    page = pages.random(1, seed).reshape(256, 16)
    page[[not written >> block & 1 for block in range(256)]] = 0
    assert classify(page.reshape(1, 4096))[0] == PRIVATE


def test_plain_data_in_a_quarter_of_a_page_of_ciphertext_is_seen() -> None:
    mixed = pages.encrypted(pages.zeros(200))
    mixed[:, 1024:2048] = pages.text(200)[:, 1024:2048]
    assert np.all(classify(mixed) == PageClass.SHARED)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 2]), max_size=150))
def test_each_page_is_judged_by_itself(kinds: list[int]) -> None:
    samples = np.concatenate([pages.zeros(1), pages.text(1), pages.random(1)])
    assert classify(samples[kinds]).tolist() == kinds
