"""Streams of steps."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import guests
from fakekvm.guests import Flip, WritePages
from tests.fakekvm.steps import as_text, pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from fakekvm.guests import Step

GFNS = range(100, 200)

STREAMS = {
    "random": lambda rng: guests.random_writer(GFNS, rng),
    "hot and cold": lambda rng: guests.hot_and_cold(range(10), GFNS, rng),
    "flip, write": lambda rng: guests.flip_then_write(GFNS, rng),
    "write, flip": lambda rng: guests.write_then_flip(GFNS, rng),
}


@pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
def test_a_stream_is_determined_by_its_seed(
    stream: Callable[[np.random.Generator], Iterator[Step]],
) -> None:
    first, again, other = (as_text(stream(np.random.default_rng(s)), 20) for s in (1, 1, 2))
    assert first == again != other


def test_a_sequential_writer_writes_everything_in_order_again_and_again() -> None:
    steps = list(islice(guests.sequential_writer(GFNS, chunk_pages=30), 8))
    assert [gfn for step in steps[:4] for gfn in pages(step)] == list(GFNS)
    assert [gfn for step in steps[4:] for gfn in pages(step)] == list(GFNS)
    assert [step.value for step in steps if isinstance(step, WritePages)] == [1] * 4 + [2] * 4


def test_a_random_writer_reaches_every_page_and_no_other() -> None:
    steps = islice(guests.random_writer(GFNS, np.random.default_rng(1), chunk_pages=100), 50)
    assert {gfn for step in steps for gfn in pages(step)} == set(GFNS)


def test_hot_pages_get_their_share_and_cold_ones_are_swept_in_turn() -> None:
    hot = range(10)
    stream = guests.hot_and_cold(hot, GFNS, np.random.default_rng(1), 0.9, chunk_pages=100)
    for n, step in enumerate(islice(stream, 20)):
        written = pages(step)
        swept = sorted(gfn for gfn in written if gfn >= 100)
        start = 100 + n * 10 % 100
        assert swept == list(range(start, start + 10))
        assert len(written) == 100
        assert set(written) - set(swept) <= set(hot)


def test_a_guest_with_hot_pages_only_sweeps_nothing() -> None:
    stream = guests.hot_and_cold(range(10), range(0), np.random.default_rng(1), 1.0)
    assert set(pages(next(stream))) <= set(range(10))


@pytest.mark.parametrize("flip_first", [True, False])
def test_a_conversion_is_a_flip_and_a_write_of_the_same_run(*, flip_first: bool) -> None:
    make = guests.flip_then_write if flip_first else guests.write_then_flip
    stream = make(GFNS, np.random.default_rng(1), run_pages=16)
    private = dict.fromkeys(GFNS, True)
    sizes = set()
    for _ in range(50):
        first, second = next(stream), next(stream)
        flip, write = (first, second) if flip_first else (second, first)
        assert isinstance(flip, Flip)
        run = range(flip.gfn, flip.gfn + flip.npages)
        assert pages(write) == list(run)
        assert {private[gfn] for gfn in run} == {not flip.private}, "it really changes"
        private.update(dict.fromkeys(run, flip.private))
        sizes.add(flip.npages)
    assert sizes == {16, 4}
