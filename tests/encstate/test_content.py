"""Private/shared from page contents: bitmaps, counts, confidence, and what cannot be known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.encstate.content import ContentSource, sample_pages
from kvmenc.encstate.contentreport import CONFIDENCE, ContentReport
from kvmenc.encstate.kinds import VmKind
from kvmenc.errors import NotSupported
from kvmenc.memory.slots import MemSlot
from tests.encstate import pages
from tests.encstate.bits import bits_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

ZERO, SHARED, RANDOM, HOLE = range(4)
SAMPLES = np.concatenate([pages.zeros(1), pages.log_lines(1), pages.random(1)])


class Memory:
    """Slots made of the kinds given; a HOLE cannot be read, and ends every reading before it."""

    def __init__(self, *kinds: list[int], at_most: int = 64) -> None:
        self.kinds = kinds
        self.at_most = at_most
        self.slots = [MemSlot(i, i << 20, len(k), 0) for i, k in enumerate(kinds)]

    def read_pages(self, slot: MemSlot, first: int, npages: int) -> NDArray[np.uint8]:
        kinds = self.kinds[slot.slot_id][first : first + min(npages, self.at_most)]
        readable = kinds[: kinds.index(HOLE)] if HOLE in kinds else kinds
        pages: NDArray[np.uint8] = SAMPLES[readable]
        return pages

    def source(self) -> ContentSource:
        return ContentSource(self.read_pages, VmKind.SEV)


def private_bits(memory: Memory) -> list[list[int]]:
    return [bits_of(words, slot.npages) for slot, words in memory.source().read(memory.slots)]


kinds_of_a_slot = st.lists(st.sampled_from([ZERO, SHARED, RANDOM]), min_size=1, max_size=200)


@settings(max_examples=25, deadline=None)
@given(kinds_of_a_slot, kinds_of_a_slot, st.integers(1, 64))
def test_only_pages_that_look_encrypted_are_private(
    first: list[int], second: list[int], at_most: int
) -> None:
    """However short the reads are."""
    expected = [[int(kind == RANDOM) for kind in kinds] for kinds in (first, second)]
    assert private_bits(Memory(first, second, at_most=at_most)) == expected


def test_a_page_that_cannot_be_read_stays_private() -> None:
    memory = Memory([ZERO] * 64 + [SHARED, HOLE, ZERO])
    assert private_bits(memory) == [[0] * 64 + [0, 1, 1]]


def test_a_reader_that_gives_part_of_a_page_gives_nothing_of_it() -> None:
    source = ContentSource(lambda *_: bytes(4095), VmKind.SEV)
    assert source.survey([MemSlot(0, 0, 3, 0)]).unread_pages == 3


def test_a_reader_that_gives_too_much_is_cut_short() -> None:
    source = ContentSource(lambda *_: bytes(100 * 4096), VmKind.SEV)
    assert source.survey([MemSlot(0, 0, 3, 0)]).zero_pages == 3


def test_a_survey_counts_every_page_once() -> None:
    memory = Memory([ZERO] * 100 + [SHARED] * 30 + [RANDOM] * 7, [RANDOM] * 65 + [HOLE])
    assert memory.source().survey(memory.slots) == ContentReport(
        total_pages=203,
        zero_pages=100,
        shared_pages=30,
        private_or_random_pages=72,
        unread_pages=1,
    )


def test_reading_the_bitmaps_counts_the_classes_as_well() -> None:
    memory = Memory([ZERO] * 3 + [RANDOM] * 2)
    source = memory.source()
    for _ in range(2):
        list(source.read(memory.slots))
        assert source.report == memory.source().survey(memory.slots)
    assert source.report.private_or_random_pages == 2


def test_a_sample_of_everything_is_a_survey() -> None:
    memory = Memory([ZERO] * 10 + [SHARED] * 20, [RANDOM] * 30)
    sampled = memory.source().sample(memory.slots, 1000, np.random.default_rng(1))
    assert sampled == memory.source().survey(memory.slots)


def test_a_sample_reads_no_more_than_asked() -> None:
    memory = Memory([ZERO] * 500, [RANDOM] * 500)
    report = memory.source().sample(memory.slots, 50, np.random.default_rng(1))
    assert (report.read_pages, report.total_pages) == (50, 1000)


@given(st.lists(st.integers(1, 300), max_size=5), st.integers(0, 400), st.integers(0, 99))
def test_sampled_pages_lie_in_their_slots_and_none_comes_twice(
    sizes: list[int], npages: int, seed: int
) -> None:
    slots = [MemSlot(i, i << 20, size, 0) for i, size in enumerate(sizes)]
    drawn = [
        (slot.slot_id, page)
        for slot, pages in sample_pages(slots, npages, np.random.default_rng(seed))
        for page in pages.tolist()
    ]
    assert len(drawn) == len(set(drawn)) == min(npages, sum(sizes))
    assert all(0 <= page < sizes[slot_id] for slot_id, page in drawn)
    assert drawn == sorted(drawn)


def test_every_page_is_as_likely_to_be_sampled() -> None:
    slots = [MemSlot(0, 0, 10, 0), MemSlot(1, 100, 30, 0)]
    hits = np.zeros(40)
    for seed in range(2000):
        for slot, drawn in sample_pages(slots, 4, np.random.default_rng(seed)):
            hits[10 * slot.slot_id + drawn] += 1
    assert np.all(np.abs(hits / 2000 - 0.1) < 4.5 * math.sqrt(0.1 * 0.9 / 2000))


def test_a_small_sample_of_a_huge_guest_is_cheap() -> None:
    """One array entry a page of the guest would not fit in memory."""
    slots = [MemSlot(0, 0, 1 << 40, 0)]
    drawn = [
        page for _, pages in sample_pages(slots, 5, np.random.default_rng(1)) for page in pages
    ]
    assert len(drawn) == 5


def report(zero: int = 0, shared: int = 0, private: int = 0, total: int = 0) -> ContentReport:
    return ContentReport(
        total_pages=total or zero + shared + private,
        zero_pages=zero,
        shared_pages=shared,
        private_or_random_pages=private,
        unread_pages=0,
    )


def test_the_share_of_a_full_reading_is_exact() -> None:
    share = report(zero=1, private=3).share(3)
    assert (share.low, share.value, share.high) == (0.75, 0.75, 0.75)


@pytest.mark.parametrize("truth", [0.5, 0.05, 0.002])
def test_the_interval_of_a_sample_holds_the_truth_as_often_as_it_says(truth: float) -> None:
    drawn = np.random.default_rng(2).binomial(1000, truth, 4000)
    shares = [report(zero=1000 - n, shared=n, total=10**9).share(n) for n in drawn.tolist()]
    held = np.mean([share.low <= truth <= share.high for share in shares])
    assert held == pytest.approx(CONFIDENCE, abs=0.01)


@pytest.mark.parametrize("count", [0, 1000])
def test_the_interval_of_an_unanimous_sample_is_not_a_point(count: int) -> None:
    """By Wilson's formula its width is z^2 / (n + z^2); z = 2.576."""
    share = report(zero=1000 - count, shared=count, total=10**9).share(count)
    assert share.high - share.low == pytest.approx(6.635 / 1006.635, rel=1e-3)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_a_tebibyte_read_in_full_has_less_than_a_thousandth_of_a_false_shared_page() -> None:
    assert report(private=2**28).false_shared_pages <= 1e-3


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (
            report(zero=1, shared=1),
            "nothing looks encrypted: 0.0 % private or random, 50.0 % shared",
        ),
        (
            report(zero=1, private=3),
            "all that was written looks encrypted or random: 75.0 % private",
        ),
        (report(shared=1, private=3), "some pages hold plain data: 75.0 % private or random"),
        (report(private=3), "all 3 pages read"),
        (report(shared=1, private=9, total=20), "10 of 20 pages read, 99 % confidence"),
        (report(shared=10, private=90, total=2**28), "90.0 % (79.6 to 95.4 %) private or random"),
        (report(zero=1), "zero (shared or never written)"),
    ],
)
def test_the_verdict_says_it_in_one_line(found: ContentReport, words: str) -> None:
    assert words in found.verdict
    assert "\n" not in found.verdict


def test_a_guest_of_which_nothing_can_be_read_is_unknown_not_shared() -> None:
    memory = Memory([HOLE] * 3)
    verdict = memory.source().survey(memory.slots).verdict
    assert verdict == "unknown: none of 3 pages could be read"


@pytest.mark.parametrize("kind", [VmKind.SEV_SNP, VmKind.TDX, VmKind.SW_PROTECTED])
def test_contents_are_no_source_where_private_memory_is_in_guest_memfd(kind: VmKind) -> None:
    with pytest.raises(NotSupported, match="guest_memfd"):
        ContentSource(Memory().read_pages, kind)
