from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.capture import BlockFacts
from kvmenc.plan.curve import DirtyCurve
from kvmenc.plan.sweep import Sweep
from tests.plan.guests import capture_of, guest

NPAGES = 4096
CHUNK = 512

BITMAP_PAGES = 2**15
BITMAP_CHUNK = BITMAP_PAGES // 8
#: Writes per ms: a tenth of the pages is hot.
RATES = np.where(np.arange(BITMAP_PAGES) % 10 == 0, 0.02, 0.0005)


class Bitmaps:
    """A guest that writes by chance, KVM's log and QEMU's bitmap of it, page by page.

    The log is read without clearing it (KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2); what was read is
    cleared in a chunk when the first page of it is sent.
    """

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.log = np.ones(BITMAP_PAGES, bool)
        self.sync()
        self.pending = np.ones(BITMAP_PAGES, bool)
        self.cursor = 0

    def run(self, ms: float) -> None:
        self.log |= self.rng.random(BITMAP_PAGES) < 1 - np.exp(-RATES * ms)

    def sync(self) -> None:
        self.read = self.log.copy()
        self.pending = self.log | getattr(self, "pending", False)
        self.cleared = [False] * (BITMAP_PAGES // BITMAP_CHUNK)

    def send_until(self, position: int) -> int:
        sent = 0
        while self.cursor < position:
            start = self.cursor % BITMAP_PAGES
            chunk = start // BITMAP_CHUNK
            end = min((chunk + 1) * BITMAP_CHUNK, start + position - self.cursor)
            whole = slice(chunk * BITMAP_CHUNK, (chunk + 1) * BITMAP_CHUNK)
            if not self.cleared[chunk] and self.pending[start:end].any():
                self.log[whole] &= ~self.read[whole]
                self.cleared[chunk] = True
            sent += int(self.pending[start:end].sum())
            self.pending[start:end] = False
            self.cursor += end - start
        return sent


def chance_sweep() -> Sweep:
    """The same guest as a curve: on average, so many pages are written within so long."""
    times = np.geomspace(0.1, 1e5, 120)
    pages = [round(float((1 - np.exp(-RATES * ms)).sum())) for ms in times]
    points = [(float(ms), 0, n) for ms, n in zip(times, pages, strict=True)]
    capture = guest(BITMAP_PAGES, 0, points)
    return Sweep(capture.blocks, DirtyCurve.from_capture(capture), BITMAP_CHUNK)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    steps=st.lists(
        st.tuples(
            st.sampled_from([0.0, 0.3, 0.5, 1.0, 3.0, 10.0]),
            st.sampled_from([0, 5, 50, 700, 5000]),
            st.booleans(),
        ),
        min_size=1,
        max_size=14,
    ),
)
def test_what_is_pending_is_what_kvms_and_qemus_bitmaps_would_say(
    seed: int, steps: list[tuple[float, int, bool]]
) -> None:
    """Any order of sending (parts of chunks, many chunks), running and syncing."""
    sweep, bitmaps, now = chance_sweep(), Bitmaps(seed), 0.0
    for chunks, ms, sync in steps:
        for _ in range(math.ceil(chunks)):
            if sweep:
                before = sweep.pending_pages
                sweep.pass_front(min(1.0, chunks), now)
                sent = before - sweep.pending_pages
                expected = bitmaps.send_until(round(sweep.passes * BITMAP_PAGES))
                assert sent == pytest.approx(expected, abs=BITMAP_PAGES / 60)
        now += ms
        bitmaps.run(ms)
        if sync:
            sweep.sync(now)
            bitmaps.sync()
        expected = int(bitmaps.pending.sum())
        assert sweep.pending_pages == pytest.approx(expected, abs=BITMAP_PAGES / 60)


def even_sweep() -> Sweep:
    """So many ms dirty so many pages, up to all."""
    capture = guest(NPAGES, 0, [(NPAGES, 0, NPAGES)])
    return Sweep(capture.blocks, DirtyCurve.from_capture(capture), CHUNK)


def test_at_the_start_every_page_is_pending_on_its_road() -> None:
    blocks = [BlockFacts("a", 100, 60, 10, 0), BlockFacts("b", 10, 0, None, 0)]
    capture = capture_of(blocks, [(100, 0, 0)])
    sweep = Sweep(capture.blocks, DirtyCurve.from_capture(capture), 2**18)
    assert sweep.seen == pytest.approx((40, 10, 60))
    assert sweep.stretches[:, 0] == pytest.approx((30, 10, 60))


def test_what_is_left_over_stays_pending_over_a_sync() -> None:
    sweep = even_sweep()
    sweep.pass_front(0.5, 0)
    before = sweep.pending_pages
    new = sweep.sync(100.0)
    assert sweep.pending_pages == pytest.approx(before + new)
    assert new == pytest.approx(100 / NPAGES * (NPAGES - before))


def test_a_page_dirtied_twice_before_it_is_sent_counts_once() -> None:
    sweep = even_sweep()
    while sweep:
        sweep.pass_front(1.0, 0)
    sweep.sync(100.0)
    assert sweep.pending_pages == pytest.approx(100)
    sweep.sync(150.0)
    assert sweep.pending_pages == pytest.approx(150)
    sweep.sync(1e9)
    assert sweep.pending_pages == pytest.approx(NPAGES)


def test_writes_before_the_first_sending_of_a_chunk_are_not_sent_again() -> None:
    """Everything was pending, so the late clearing takes all of them: the first pass is cheap."""
    sweep = even_sweep()
    for chunk in range(NPAGES // CHUNK):
        sweep.pass_front(1.0, chunk * 100)
    sweep.sync(800.0)
    ages = range(100, 900, 100)
    assert sweep.pending_pages == pytest.approx(sum(ages) / len(ages))


def test_writes_to_pages_that_were_not_pending_are_not_lost_by_late_clearing() -> None:
    sweep = even_sweep()
    while sweep:
        sweep.pass_front(1.0, 0.0)
    sweep.sync(0.0)  # nothing was written yet, so nothing of it can be cleared
    while sweep:
        sweep.pass_front(1.0, 500.0)
    sweep.sync(800.0)
    assert sweep.pending_pages == pytest.approx(800)


def test_nothing_pending_is_exactly_nothing() -> None:
    sweep = even_sweep()
    for share in (0.1, 0.3, 0.7):
        sweep.pass_front(share, 0)
    while sweep:
        sweep.pass_front(1.0, 0)
    assert sweep.pending_pages == 0
    assert sweep.sync(0.0) == 0


@given(counts=st.lists(st.integers(1, 3 * CHUNK), min_size=1, max_size=12))
def test_many_pages_at_once_are_sent_as_if_stretch_by_stretch(counts: list[int]) -> None:
    """A page a millisecond: the same pages stay behind, dirtied since the same times."""
    at_once, one_by_one, now = even_sweep(), even_sweep(), 0.0
    for count in counts:
        pages = min(count, at_once.pending_pages)
        at_once.pass_pages(pages, lambda before, start=now: start + before)  # type: ignore[misc]
        left = pages
        while left > 1e-9:
            share = min(1.0, left / one_by_one.front_pages)
            sent = share * one_by_one.front_pages
            one_by_one.pass_front(share, now)
            now, left = now + sent, left - sent
        assert at_once.pending_pages == pytest.approx(one_by_one.pending_pages)
        assert at_once.sent == pytest.approx(one_by_one.sent)
        assert at_once.passes == pytest.approx(one_by_one.passes)
    at_once.sync(now)
    one_by_one.sync(now)
    assert at_once.pending_pages == pytest.approx(one_by_one.pending_pages)
