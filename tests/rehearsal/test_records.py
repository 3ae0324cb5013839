"""Records: what is sealed opens once, in its place, as it was; anything else is refused by name."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.rehearsal.records import Opener, PagesRecord, RecordRefused, Sealer

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
