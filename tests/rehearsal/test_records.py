"""Records: what is sealed opens once, in its place, as it was; anything else is refused by name."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.errors import CheckFailed
from kvmenc.rehearsal import near_target
from kvmenc.rehearsal.records import Opener, PagesRecord, RecordRefused, Sealer
from kvmenc.rehearsal.side import guest_layout
from tests.fuzz.records import RECORDS, SIZES
from tests.stream.raw import PAGE

if TYPE_CHECKING:
    from collections.abc import Sequence

KEY = bytes(range(16))


def rows(count: int, size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, size), np.uint8)


@given(st.lists(st.integers(0, 2**40), max_size=6), st.integers(0, 6), st.integers(0, 6))
def test_a_record_decodes_to_what_was_encoded(numbers: list[int], a: int, b: int) -> None:
    pages = np.array(numbers, np.int64)
    normal, zero, encrypted = np.split(pages, sorted([min(a, pages.size), min(b, pages.size)]))
    record = PagesRecord(
        block=3,
        normal=normal,
        contents=rows(normal.size, 4096, 1),
        zero=zero,
        encrypted=encrypted,
        headers=rows(encrypted.size, 52, 2),
        transports=rows(encrypted.size, 4096, 3),
    )
    found = PagesRecord.decode(record.encode())
    assert (found.block, found.pages) == (3, pages.size)
    for name in ("normal", "contents", "zero", "encrypted", "headers", "transports"):
        assert np.array_equal(getattr(found, name), getattr(record, name))


def sealed(count: int) -> list[bytes]:
    sealer = Sealer(KEY)
    return [sealer.seal(b"record %d" % number) for number in range(count)]


def why(opener: Opener, record: bytes) -> str:
    with pytest.raises(RecordRefused) as refused:
        opener.open(record)
    return refused.value.why


def test_records_open_in_their_order() -> None:
    opener = Opener(KEY)
    assert [opener.open(it) for it in sealed(3)] == [b"record 0", b"record 1", b"record 2"]


def test_replayed_reordered_and_truncated_records_are_refused_by_name_and_the_next_opens() -> None:
    first, second, third = sealed(3)
    opener = Opener(KEY)
    opener.open(first)
    assert why(opener, first) == "replayed"
    assert why(opener, third) == "reordered"
    assert why(opener, second[:-1]) == "truncated"
    assert why(opener, second[:3]) == "truncated"
    assert opener.open(second) == b"record 1"


@given(st.integers(0, 8 * len(sealed(1)[0]) - 1))
def test_a_record_with_any_bit_changed_is_refused(bit: int) -> None:
    (record,) = sealed(1)
    changed = bytearray(record)
    changed[bit // 8] ^= 1 << bit % 8
    assert why(Opener(KEY), bytes(changed)) in {"tampered", "truncated"}


def test_a_record_under_another_key_is_refused() -> None:
    assert why(Opener(bytes(16)), sealed(1)[0]) == "tampered"


def malformed(record: bytes, sizes: Sequence[int] = SIZES) -> str:
    with pytest.raises(RecordRefused, match=r"^a record of the stream refused: malformed: ") as it:
        PagesRecord.decode(record).check(sizes, 52)
    assert it.value.why == "malformed"
    return str(it.value).rpartition("malformed: ")[2]


def head(*fields: int) -> bytes:
    return struct.pack("<IIIII", *fields)


def test_a_record_whose_head_lies_about_its_length_is_refused() -> None:
    for record in RECORDS:
        assert PagesRecord.decode(record).check(SIZES, 52).pages
        assert "its head says" in malformed(record[:-1])
        assert "its head says" in malformed(record + b"\0")
    assert malformed(b"") == "0 bytes, fewer than a head"
    assert "its head says" in malformed(head(0, *[2**32 - 1] * 4))
    assert "its head says" in malformed(head(0, 0, 0, 1, 2**32 - 1) + bytes(8 + PAGE + 52))


def zeros_at(*pages: int, block: int = 0) -> bytes:
    return head(block, 0, len(pages), 0, 52) + struct.pack(f"<{len(pages)}Q", *pages)


def test_pages_that_a_block_has_not_and_blocks_that_a_guest_has_not_are_refused() -> None:
    assert malformed(zeros_at(3, 64)) == "zero page 0x40 of 0x40"
    assert malformed(zeros_at(2**64 - 1)) == "zero page 0xffffffffffffffff of 0x40"
    assert malformed(zeros_at(1, block=2)) == "block 2 of 2"
    assert malformed(zeros_at(block=0), sizes=[]) == "block 0 of 0"


def test_pages_out_of_order_or_by_two_roads_are_refused() -> None:
    """Who looks which of them are zero takes them for ascending."""
    assert malformed(zeros_at(5, 4)) == "its zero pages do not ascend"
    assert malformed(zeros_at(5, 5)) == "its zero pages do not ascend"
    both = head(0, 1, 1, 0, 0) + struct.pack("<QQ", 7, 7) + bytes(PAGE)
    assert malformed(both) == "a page comes by two roads"


def test_headers_of_another_length_are_refused() -> None:
    record = head(0, 0, 0, 1, 60) + struct.pack("<Q", 7) + bytes(60 + PAGE)
    assert malformed(record) == "headers of 60 bytes, this session's have 52"


@given(st.lists(st.integers(0, 9), max_size=4), st.lists(st.integers(0, 9), max_size=4), st.data())
def test_a_record_is_taken_only_if_each_page_comes_once_and_in_order(
    zero: list[int], normal: list[int], data: st.DataObject
) -> None:
    npages = data.draw(st.integers(1, 10))
    record = head(0, len(normal), len(zero), 0, 0) + struct.pack(
        f"<{len(normal) + len(zero)}Q", *normal, *zero
    )
    sound = all(
        road == sorted(set(road)) and all(page < npages for page in road) for road in (zero, normal)
    ) and not set(zero) & set(normal)
    try:
        PagesRecord.decode(record + bytes(PAGE * len(normal))).check([npages], 52)
    except RecordRefused:
        assert not sound
    else:
        assert sound


def test_a_destination_takes_nothing_of_a_record_that_is_not_its_guests() -> None:
    """As if the other end itself were hostile: each is sealed as it should be."""
    shape = guest_layout(2 << 20)
    npages = [block.npages for block in shape.blocks]
    wrong = [zeros_at(npages[0]), zeros_at(2**63), zeros_at(0, block=len(npages)), zeros_at(9, 3)]
    record = PagesRecord(block=0, normal=np.array([1, npages[0]]), contents=rows(2, PAGE, 1))
    headers = PagesRecord(
        block=0, encrypted=np.array([2]), headers=rows(1, 4, 1), transports=rows(1, PAGE, 2)
    )
    with near_target(shape) as target:
        target._hdr_len = 52
        for plain in (*wrong, record.encode(), headers.encode(), b"", record.encode()[:-1]):
            target._opener = Opener(KEY)
            with pytest.raises(RecordRefused, match="malformed"):
                target.take(Sealer(KEY).seal(plain))
        assert not target._rows[0].any()
        with pytest.raises(CheckFailed, match="malformed"):
            target.finish({})
