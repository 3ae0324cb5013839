"""The hash of pages: against its definition, and its bound on collisions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.contents.hashing import PageHash
from tests.contents.target import PAGE

Words = list[int]


def by_definition(words: Words, keys: Words) -> int:
    total = 0
    for i in range(0, len(words), 2):
        first = (words[i] + keys[i]) % 2**32
        total += first * ((words[i + 1] + keys[i + 1]) % 2**32)
    return total % 2**64


@given(st.integers(0, 200), st.integers(0, 9))
def test_it_is_the_sum_of_products_that_it_says(npages: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 256, (npages, 64), np.uint8)
    hasher = PageHash(rng, 64)
    keys = hasher._keys.tolist()
    expected = [by_definition(row, keys) for row in rows.view(np.uint32).tolist()]
    assert hasher(rows).tolist() == expected


@given(st.binary(min_size=8, max_size=8), st.integers(0, PAGE // 8 - 1), st.integers(0, 9))
def test_equal_pages_have_equal_hashes_and_different_ones_do_not(
    change: bytes, place: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    page = rng.integers(0, 256, PAGE, np.uint8)
    other = page.copy()
    other.reshape(-1, 8)[place] = np.frombuffer(change, np.uint8)
    first, same, second = PageHash(rng, PAGE)(np.stack([page, page, other]))
    assert first == same
    assert (first == second) == np.array_equal(page, other)


@pytest.mark.parametrize("bits", [1, 2, 3])
def test_at_most_one_key_makes_two_pages_collide(bits: int) -> None:
    """The proof, in words of so few bits that every pair of pages and every key can be tried."""
    n = 1 << bits
    a, c, b, d, k, last = np.meshgrid(*[np.arange(n)] * 6, indexing="ij", sparse=True)
    left = (a + k) % n * ((b + last) % n)
    right = (c + k) % n * ((d + last) % n)
    differences = np.sort((left - right) % n**2, axis=5)
    differ = ~np.eye(n, dtype=np.bool_)  # a and c do
    # Whatever the other words add, one key at most gives the difference that makes up for it.
    assert np.diff(differences[differ], axis=4).all()


def test_two_runs_have_keys_of_their_own() -> None:
    rows = np.arange(PAGE, dtype=np.uint16).view(np.uint8)[:PAGE].reshape(1, PAGE)
    first, second = (PageHash(np.random.default_rng(seed), PAGE)(rows) for seed in (1, 2))
    assert first != second
