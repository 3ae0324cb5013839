"""The list of shared ranges of v10, with its faults."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakekvm.encbitmap import EncBitmap
from tests.fakekvm.raw import Buffer, Result
from tests.fakekvm.test_encbitmap import call

GET, SET = 0x4018AEC8, 0x4018AEC9
Ranges = list[tuple[int, int]]


def get(enc: EncBitmap, room: int = 64) -> Ranges | Result:
    """The list, through a buffer for ``room`` entries; or the errno."""
    count, buffer = Buffer(b"\xff" * 4), Buffer(bytes(room * 16))
    argument = Buffer(struct.pack("<QQI4x", count.address, buffer.address, room * 16))
    result = call(enc, GET, argument)
    if result != 0:
        return result
    found = int.from_bytes(count.bytes, "little")
    return [(start, end) for start, end in struct.iter_unpack("<QQ", buffer.bytes)][:found]


def put(enc: EncBitmap, ranges: Ranges, count: int | None = None) -> Result:
    packed = b"".join(struct.pack("<QQ", *pair) for pair in ranges)
    number = len(ranges) if count is None else count
    buffer, counter = Buffer(packed), Buffer(struct.pack("<i", number))
    return call(
        enc, SET, Buffer(struct.pack("<QQI4x", counter.address, buffer.address, len(packed)))
    )


@pytest.fixture
def enc() -> EncBitmap:
    return EncBitmap("v10")


def test_nothing_is_shared_at_first(enc: EncBitmap) -> None:
    assert get(enc) == []


def test_shared_ranges_are_listed_by_gfn_with_the_end_exclusive(enc: EncBitmap) -> None:
    assert enc.set_range(100, 5, private=False) == 1
    assert enc.set_range(10, 5, private=False) == 1
    assert get(enc) == [(10, 15), (100, 105)]


def test_a_range_right_behind_another_is_merged(enc: EncBitmap) -> None:
    enc.set_range(10, 5, private=False)
    assert enc.set_range(15, 5, private=False) == 0
    assert get(enc) == [(10, 20)]


def test_a_range_that_reaches_into_the_next_makes_them_overlap(enc: EncBitmap) -> None:
    enc.set_range(10, 5, private=False)
    enc.set_range(20, 5, private=False)
    enc.set_range(12, 20, private=False)
    assert get(enc) == [(10, 32), (20, 25)]


def test_taking_back_a_part_takes_a_page_more_at_each_side(enc: EncBitmap) -> None:
    enc.set_range(10, 20, private=False)
    assert enc.set_range(15, 5, private=True) == 1
    assert get(enc) == [(10, 14), (21, 30)], "14 and 20 are lost"


def test_taking_back_all_of_a_range_removes_it(enc: EncBitmap) -> None:
    enc.set_range(10, 5, private=False)
    assert enc.set_range(10, 5, private=True) == -1
    assert get(enc) == []
    assert enc.set_range(10, 5, private=True) == 0


def test_a_list_that_does_not_fit_is_e2big(enc: EncBitmap) -> None:
    for first in (10, 20, 30):
        enc.set_range(first, 5, private=False)
    assert get(enc, room=2) == "E2BIG"
    assert get(enc, room=3) == [(10, 15), (20, 25), (30, 35)]
    assert get(enc, room=0) == "EINVAL"


def test_pointers_are_checked_when_they_are_used(enc: EncBitmap) -> None:
    def read(pnents: int, buffer: int) -> Result:
        return call(enc, GET, Buffer(struct.pack("<QQI4x", pnents, buffer, 1024)))

    room = Buffer(bytes(1024))
    assert read(0, room.address) == "EFAULT"
    assert read(room.address, 0) == 0, "an empty list is not stored"
    enc.set_range(10, 5, private=False)
    assert read(room.address, 0) == "EFAULT"
    assert read(0, room.address) == "EFAULT"
    assert call(enc, SET, Buffer(struct.pack("<QQI4x", 0, 0, 0))) == "EFAULT"


def test_set_appends_and_counts_only_what_it_appended(enc: EncBitmap) -> None:
    assert put(enc, [(1, 2), (3, 4)]) == 0
    assert get(enc) == [(1, 2), (3, 4)]
    assert put(enc, [(5, 6)]) == 0
    count, buffer = Buffer(bytes(4)), Buffer(b"\xee" * 64)
    argument = Buffer(struct.pack("<QQI4x", count.address, buffer.address, 64))
    assert call(enc, GET, argument) == 0
    assert count.bytes[0] == 3, "more than were stored"
    assert buffer.bytes == struct.pack("<QQ", 1, 2) + b"\xee" * 48


def test_set_of_nothing_makes_all_private(enc: EncBitmap) -> None:
    for ranges in ([], [(3, 4)]):
        put(enc, [(1, 2)])
        assert put(enc, ranges, count=0) == 0
        assert get(enc) == []
    put(enc, [(1, 2)])
    counter = Buffer(struct.pack("<i", 7))
    assert call(enc, SET, Buffer(struct.pack("<QQI4x", counter.address, 0, 0))) == 0
    assert get(enc) == []


def test_set_of_too_many_is_enomem_and_of_less_than_none_too(enc: EncBitmap) -> None:
    assert put(enc, [(1, 2)], count=(4 << 20) // 16 + 1) == "ENOMEM"
    assert put(enc, [(1, 2)], count=-1) == "ENOMEM"
    assert get(enc) == []


class Node:
    def __init__(self, start: int, end: int) -> None:
        self.gfn_start, self.gfn_end = start, end


class PostedList:
    """add_shared_region and remove_shared_region, line by line."""

    def __init__(self) -> None:
        self.head: list[Node] = []
        self.count = 0

    def add(self, start: int, end: int) -> int:
        before: Node | None = None
        for pos in self.head:
            if pos.gfn_end < start:
                continue
            if pos.gfn_start <= start and pos.gfn_end >= start:
                pos.gfn_end = end
                return 0
            before = pos
            break
        place = len(self.head) if before is None else self.head.index(before)
        self.head.insert(place, Node(start, end))
        self.count += 1
        return 1

    def remove(self, start: int, end: int) -> int:
        change = self._remove(start, end)
        self.count += change
        return change

    def _remove(self, start: int, end: int) -> int:
        for pos in self.head:
            if pos.gfn_start == start and pos.gfn_end == end:
                self.head.remove(pos)
                return -1
            if start >= pos.gfn_start and end <= pos.gfn_end:
                if start == pos.gfn_start:
                    pos.gfn_start = end + 1
                elif end == pos.gfn_end:
                    pos.gfn_end = start - 1
                else:
                    tail = Node(end + 1, pos.gfn_end)
                    pos.gfn_end = start - 1
                    self.head.insert(self.head.index(pos) + 1, tail)
                    return 1
                return 0
        return 0


CALLS = st.lists(st.tuples(st.booleans(), st.integers(1, 60), st.integers(1, 12)), max_size=25)


@given(CALLS)
def test_any_announcements_leave_what_the_posted_code_leaves(
    calls: list[tuple[bool, int, int]],
) -> None:
    enc, code = EncBitmap("v10"), PostedList()
    for private, gfn, npages in calls:
        change = code.remove if private else code.add
        assert enc.set_range(gfn, npages, private) == change(gfn, gfn + npages)
    expected = [(node.gfn_start, node.gfn_end) for node in code.head]
    assert get(enc) == (expected if code.count else [])
