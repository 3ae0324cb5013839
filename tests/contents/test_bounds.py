"""Bounds from samples: against exact fractions, and by simulation."""

from __future__ import annotations

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.contents.bounds import CONFIDENCE, estimate

TAIL = Fraction(1, 40) * (1 - Fraction(1, 10**5))


def probability(hits: int, drawn: int, marked: int, population: int) -> Fraction:
    ways = comb(marked, hits) * comb(population - marked, drawn - hits)
    return Fraction(ways, comb(population, drawn))


def bounds_by_trial(hits: int, drawn: int, population: int) -> tuple[int, int]:
    """The least and the most hits in the population that do not make the sample too unlikely."""
    possible = []
    for marked in range(hits, population - (drawn - hits) + 1):
        at_most = sum(probability(x, drawn, marked, population) for x in range(hits + 1))
        at_least = sum(probability(x, drawn, marked, population) for x in range(hits, drawn + 1))
        if at_most > TAIL and at_least > TAIL:
            possible.append(marked)
    return possible[0], possible[-1]


@st.composite
def samples(draw: st.DrawFn) -> tuple[int, int, int]:
    population = draw(st.integers(1, 40))
    drawn = draw(st.integers(0, population))
    return draw(st.integers(0, drawn)), drawn, population


@given(samples())
def test_the_bounds_are_those_of_an_exact_test(sample: tuple[int, int, int]) -> None:
    found = estimate(*sample)
    assert (found.low_pages, found.high_pages) == bounds_by_trial(*sample)


@given(samples())
def test_the_estimate_lies_within_its_bounds(sample: tuple[int, int, int]) -> None:
    found = estimate(*sample)
    assert 0 <= found.low_pages <= found.pages <= found.high_pages <= sample[2]


@given(st.integers(0, 300), st.integers(0, 300))
def test_a_sample_of_everything_leaves_no_doubt(hits: int, others: int) -> None:
    found = estimate(hits, hits + others, hits + others)
    assert (found.low_pages, found.pages, found.high_pages) == (hits, hits, hits)


def test_a_sample_of_nothing_says_nothing() -> None:
    found = estimate(0, 0, 1000)
    assert (found.low_pages, found.high_pages) == (0, 1000)


def test_doubtful_pages_raise_the_upper_bound_alone() -> None:
    sure, doubtful = estimate(5, 100, 1000), estimate(5, 100, 1000, unsure=20)
    assert (doubtful.pages, doubtful.low_pages) == (sure.pages, sure.low_pages)
    assert doubtful.high_pages == estimate(25, 100, 1000).high_pages > sure.high_pages


@pytest.mark.parametrize(
    ("marked", "drawn", "population"),
    [(0, 50, 10_000), (3, 500, 10_000), (700, 200, 1000), (5000, 100, 10_000), (10, 999, 1000)],
)
def test_the_bounds_hold_as_often_as_they_say(marked: int, drawn: int, population: int) -> None:
    rng = np.random.default_rng(20)
    seen = rng.hypergeometric(marked, population - marked, drawn, 4000)
    hits, times = np.unique(seen, return_counts=True)
    held = 0
    for hit, count in zip(hits.tolist(), times.tolist(), strict=True):
        found = estimate(hit, drawn, population)
        held += count if found.low_pages <= marked <= found.high_pages else 0
    assert held / 4000 >= CONFIDENCE - 0.01


def test_a_tebibyte_is_bounded_as_tightly_as_its_sample_allows() -> None:
    """By the normal approximation: 1.96 standard deviations of 262144 pages drawn."""
    population, drawn = 1 << 28, 1 << 18
    found = estimate(drawn // 4, drawn, population)
    deviation = population * (0.25 * 0.75 / drawn) ** 0.5
    assert found.pages == population // 4
    assert found.high_pages - found.pages == pytest.approx(1.96 * deviation, rel=0.01)
    assert found.pages - found.low_pages == pytest.approx(1.96 * deviation, rel=0.01)


def test_rare_hits_in_a_tebibyte_are_bounded_too() -> None:
    """None among n pages: by the rule of the 3.69 in n at 97.5 %."""
    population, drawn = 1 << 28, 1 << 18
    found = estimate(0, drawn, population)
    assert (found.low_pages, found.pages) == (0, 0)
    assert found.high_pages == pytest.approx(3.689 * population / drawn, rel=0.01)
