"""Differences, by an encoder after QEMU's own description, and what QEMU's decoder refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvmenc.errors import StreamError
from kvmenc.stream.xbzrle import patch

PAGE = 4096


def length(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value & 0x7F | 0x80, value >> 7])


def encoded(old: bytes, new: bytes) -> bytes:
    """docs/xbzrle.txt: page = zrun nzrun | zrun nzrun page, byte by byte."""
    result, at = b"", 0
    while at < len(new):
        same = at
        while same < len(new) and old[same] == new[same]:
            same += 1
        if same == len(new):
            break
        end = same
        while end < len(new) and old[end] != new[end]:
            end += 1
        result += length(same - at) + length(end - same) + new[same:end]
        at = end
    return result


@given(st.dictionaries(st.integers(0, PAGE - 1), st.integers(1, 255), max_size=60), st.booleans())
def test_a_page_becomes_what_it_was_encoded_from(changes: dict[int, int], everything: bool) -> None:
    old = np.arange(PAGE, dtype=np.uint64).astype(np.uint8)
    new = old.copy() + np.uint8(everything)
    for at, by in changes.items():
        new[at] ^= by
    page = old.copy()
    patch(page, encoded(old.tobytes(), new.tobytes()))
    assert np.array_equal(page, new)


@pytest.mark.parametrize(
    "data",
    [
        b"\0",
        b"\0\0",
        b"\0\1",
        b"\1\1a\0\1b",
        b"\0\x81\x80a",
        b"\xff\x1f\2ab",
        b"\0\xff\x3f" + b"a" * 99,
    ],
)
def test_what_no_encoder_makes_is_refused(data: bytes) -> None:
    with pytest.raises(StreamError, match="xbzrle"):
        patch(np.zeros(PAGE, np.uint8), data)
