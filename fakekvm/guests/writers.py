"""Guests that write: endless streams of steps, each determined by its generator."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.guests.steps import Rest, WritePages
from fakekvm.guests.zipf import ZipfRanks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fakekvm.guests.steps import Step

__all__ = [
    "burst_writer",
    "hot_and_cold",
    "phase_writer",
    "random_writer",
    "sequential_writer",
    "zipf_writer",
]

_GOLDEN = (math.sqrt(5) - 1) / 2


def sequential_writer(gfns: range, chunk_pages: int = 512) -> Iterator[Step]:
    """Writes all of ``gfns`` in order, over and over; the value is the number of the pass."""
    for passed in itertools.count(1):
        for first in range(0, len(gfns), chunk_pages):
            yield WritePages(gfns[first : first + chunk_pages], passed)


def random_writer(gfns: range, rng: np.random.Generator, chunk_pages: int = 512) -> Iterator[Step]:
    """Writes pages picked from ``gfns``, each as likely as any other."""
    for value in itertools.count(1):
        yield WritePages(_pick(gfns, chunk_pages, rng), value)


def hot_and_cold(
    hot: range,
    cold: range,
    rng: np.random.Generator,
    hot_share: float = 0.875,
    chunk_pages: int = 512,
) -> Iterator[Step]:
    """Writes hot pages at random, and sweeps through the cold ones, over and over.

    Args:
        hot: gfns written over and over.
        cold: gfns written in turn.
        rng: picks the hot pages, and the order within a chunk.
        hot_share: share of the writes that go to hot pages, 0 to 1.
        chunk_pages: writes per step.
    """
    nhot = round(chunk_pages * hot_share)
    sweep = itertools.count(step=chunk_pages - nhot)
    for value, swept in zip(itertools.count(1), sweep):
        at = np.arange(swept, swept + chunk_pages - nhot, dtype=np.int64) % max(len(cold), 1)
        picked = np.concatenate([_pick(hot, nhot, rng), cold.start + cold.step * at])
        yield WritePages(rng.permutation(picked), value)


def zipf_writer(
    gfns: range, rng: np.random.Generator, exponent: float = 1.0, chunk_pages: int = 512
) -> Iterator[Step]:
    """Writes pages picked by Zipf's law: the k-th most popular with a weight of 1 / k^exponent.

    Popular pages lie scattered, as those of a hash table or a database's buffers do. Which page has
    which rank is computed, not stored, so that a large guest takes no memory here.
    """
    ranks = ZipfRanks(len(gfns), exponent)
    stride, shift = _scatter(len(gfns), rng)
    for value in itertools.count(1):
        at = (ranks.draw(chunk_pages, rng) * stride + shift) % len(gfns)
        yield WritePages(gfns.start + gfns.step * at, value)


def burst_writer(
    gfns: range,
    rng: np.random.Generator,
    burst_pages: int = 8192,
    rest_seconds: float = 0.05,
    chunk_pages: int = 512,
) -> Iterator[Step]:
    """Writes so many pages picked at random as fast as it can, rests, writes again."""
    writer = random_writer(gfns, rng, chunk_pages)
    whole, rest = divmod(burst_pages, chunk_pages)
    for value in itertools.count(1):
        yield from itertools.islice(writer, whole)
        if rest:
            yield WritePages(_pick(gfns, rest, rng), value)
        yield Rest(rest_seconds)


def phase_writer(
    gfns: range,
    rng: np.random.Generator,
    set_pages: int = 4096,
    set_writes: int = 1 << 16,
    chunk_pages: int = 512,
) -> Iterator[Step]:
    """Writes within a working set, a run of pages; after so many writes the set is another one.

    Args:
        gfns: where the sets lie.
        rng: picks the sets, and the pages in them.
        set_pages: size of a set.
        set_writes: writes before the next set, in whole steps.
        chunk_pages: writes per step.
    """
    set_pages = min(set_pages, len(gfns))
    value = 0
    while True:
        first = int(rng.integers(len(gfns) - set_pages + 1))
        for _ in range(0, set_writes, chunk_pages):
            value += 1
            yield WritePages(_pick(gfns[first : first + set_pages], chunk_pages, rng), value)


def _pick(gfns: range, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    return gfns.start + gfns.step * rng.integers(len(gfns), size=count, dtype=np.int64)


def _scatter(count: int, rng: np.random.Generator) -> tuple[int, int]:
    """Factor and summand that map 0 .. count-1 onto itself, modulo count, within 63 bits.

    A factor near the golden ratio puts neighbouring ranks far apart.
    """
    stride = max(int(min(count, (1 << 62) // count) * _GOLDEN), 1)
    while math.gcd(stride, count) > 1:
        stride += 1
    return stride, int(rng.integers(count))
