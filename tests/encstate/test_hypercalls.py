"""The state kept from KVM_HC_MAP_GPA_RANGE exits."""

from __future__ import annotations

import threading
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc import uapi
from kvmenc.encstate.hypercalls import MapGpaTracker
from kvmenc.memory.slots import MemSlot
from tests.encstate.bits import bits_of

ENCRYPTED, PLAIN = 0x10, 0
EINVAL, ENOSYS = -22, -1000
U64 = (1 << 64) - 1

SLOTS = [MemSlot(0, 0, 100, 0), MemSlot(1, 0x100, 130, 0), MemSlot(2, 0x182, 64, 0)]


def state(tracker: MapGpaTracker, slots: list[MemSlot] = SLOTS) -> list[list[int]]:
    return [bits_of(words, slot.npages) for slot, words in tracker.read(slots)]


def test_all_memory_is_private_at_first() -> None:
    assert state(MapGpaTracker(SLOTS)) == [[1] * 100, [1] * 130, [1] * 64]


def test_a_page_announced_as_shared_reads_0_and_its_neighbours_1() -> None:
    tracker = MapGpaTracker(SLOTS)
    assert tracker.apply(0x101 << 12, 1, PLAIN) == 0
    assert state(tracker)[1][:3] == [1, 0, 1]


@pytest.mark.parametrize("hint", range(16))
def test_the_page_size_hint_is_no_private_bit(hint: int) -> None:
    """Testing the whole word for truth takes a hint for "private", as QEMU's list code did."""
    tracker = MapGpaTracker(SLOTS)
    tracker.apply(0, 2, PLAIN | hint)
    assert state(tracker)[0][:3] == [0, 0, 1]
    tracker.apply(0, 1, ENCRYPTED | hint)
    assert state(tracker)[0][:3] == [1, 0, 1]


@pytest.mark.parametrize(
    ("gpa", "npages"),
    [
        (0x1001, 1),  # not aligned
        (0xFFF, 1),
        (0x1000, 0),  # no pages
        (0x1000, U64),  # wraps to the range's own start
        ((U64 >> 12) << 12, U64 - (U64 >> 12) + 1),  # wraps to 0
    ],
)
def test_what_kvm_refuses_is_refused_and_changes_nothing(gpa: int, npages: int) -> None:
    tracker = MapGpaTracker(SLOTS)
    assert tracker.apply(gpa, npages, PLAIN) == EINVAL
    assert state(tracker) == state(MapGpaTracker(SLOTS))


def test_the_longest_range_that_does_not_wrap_is_taken() -> None:
    tracker = MapGpaTracker(SLOTS)
    assert tracker.apply(0x1000, U64 - 1, PLAIN) == 0
    assert state(tracker) == [[1] + [0] * 99, [0] * 130, [0] * 64]


def test_a_range_over_holes_changes_what_lies_in_slots_and_counts_the_rest() -> None:
    """Linux announces whole E820 ranges at boot."""
    tracker = MapGpaTracker(SLOTS)
    assert tracker.apply(90 << 12, 200, PLAIN) == 0
    assert state(tracker) == [[1] * 90 + [0] * 10, [0] * 34 + [1] * 96, [1] * 64]
    assert tracker.unkept_pages == 200 - 10 - 34
    assert tracker.apply(90 << 12, 200, ENCRYPTED) == 0
    assert tracker.unkept_pages == 200 - 10 - 34


def test_a_slot_that_was_not_there_at_first_reads_private() -> None:
    tracker = MapGpaTracker(SLOTS)
    tracker.apply(0, 0x1000, PLAIN)
    assert state(tracker, [MemSlot(7, 98, 4, 0)]) == [[0, 0, 1, 1]]


def hypercall(nr: int, *args: int) -> uapi.kvm_run:
    run = uapi.kvm_run(exit_reason=uapi.KVM_EXIT_HYPERCALL)
    run.hypercall.nr = nr
    run.hypercall.args[: len(args)] = args
    return run


@pytest.mark.parametrize(
    ("nr", "gpa", "answer"), [(12, 0x1000, 0), (12, 0x1001, EINVAL), (1, 0x1000, ENOSYS)]
)
def test_an_exit_is_answered_in_kvm_run(nr: int, gpa: int, answer: int) -> None:
    tracker = MapGpaTracker(SLOTS)
    run = hypercall(nr, gpa, 1, PLAIN)
    tracker.handle_exit(run)
    assert run.hypercall.ret == answer & U64
    assert state(tracker)[0][1] == (answer != 0)


announcements = st.lists(
    st.tuples(st.integers(0, 0x200), st.integers(1, 0x180), st.booleans()), max_size=30
)


@settings(max_examples=60, deadline=None)
@given(announcements)
def test_the_last_announcement_of_each_page_holds(script: list[tuple[int, int, bool]]) -> None:
    tracker = MapGpaTracker(SLOTS)
    private = [1] * 0x400
    for gfn, npages, to_private in script:
        tracker.apply(gfn << 12, npages, ENCRYPTED if to_private else PLAIN)
        private[gfn : gfn + npages] = [int(to_private)] * npages
    expected = [private[slot.base_gfn : slot.base_gfn + slot.npages] for slot in SLOTS]
    assert state(tracker) == expected


@pytest.mark.usefixtures("fast_switching")
def test_a_reading_sees_each_announcement_whole_or_not_at_all() -> None:
    """Every announcement covers all slots, so a reading is all 1 or all 0, over all of them."""
    tracker = MapGpaTracker(SLOTS)
    stop = threading.Event()

    def vcpu() -> None:
        while not stop.is_set():
            tracker.apply(0, 0x400, PLAIN)
            tracker.apply(0, 0x400, ENCRYPTED)

    thread = threading.Thread(target=vcpu)
    thread.start()
    try:
        seen = [{int(words[0]) & 1 for _, words in tracker.read(SLOTS)} for _ in range(400)]
    finally:
        stop.set()
        thread.join()
    assert all(len(values) == 1 for values in seen)
    assert {0, 1} == set().union(*seen)


@pytest.mark.usefixtures("fast_switching")
def test_vcpus_that_announce_pages_of_one_word_lose_nothing() -> None:
    tracker = MapGpaTracker([MemSlot(0, 0, 64, 0)])

    def vcpu(number: int) -> None:
        for _ in range(10):
            for gfn in range(number, 64, 4):
                tracker.apply(gfn << 12, 1, PLAIN)
                tracker.apply((gfn << 12) + (1 << 30), 1, PLAIN)

    threads = [threading.Thread(target=vcpu, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert state(tracker, [MemSlot(0, 0, 64, 0)]) == [[0] * 64]
    assert tracker.unkept_pages == 10 * 64


def test_memory_does_not_grow_with_the_announcements() -> None:
    """19,479 of them were counted in one boot of an SEV guest."""
    tracker = MapGpaTracker([MemSlot(0, 0, 1 << 20, 0)])
    tracker.apply(0, 1, PLAIN)
    tracemalloc.start()
    try:
        for gfn in range(0, 2000, 2):
            tracker.apply(gfn << 12, 1, PLAIN)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 10_000
