"""Records followed in lanes are those that are found one after the other."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc.stream.lanes import LEAST_BYTES, follow, numbers_at
from tests.stream.raw import PAGE

SIZES = np.zeros(PAGE, np.int64)
SIZES[[0x22, 0x28, 0x220]] = 9, 8 + PAGE, 80 + PAGE
#: Where pages are full of what looks like records, lanes begin at wrong places.
FILLS = {
    "nothing": np.zeros(80 + PAGE, np.uint8),
    "records": np.resize(np.array([0, 0, 0, 0, 0, 0, 0x10, 0x22, 0], np.uint8), 80 + PAGE),
    "flags": np.full(80 + PAGE, 0x22, np.uint8),
}


def stretch(rng: np.random.Generator, flags: list[int], fill: str) -> np.ndarray:
    """Records of random kinds out of some, with what may be a record in their pages."""
    parts = []
    for flag in rng.choice(flags, 900 if len(flags) > 1 else 400):
        record = FILLS[fill][: SIZES[flag]].copy()
        record[:8] = np.frombuffer(int(rng.integers(1 << 20) << 12 | flag).to_bytes(8, "big"), "u1")
        parts.append(record)
    return np.concatenate(parts)


def one_by_one(view: np.ndarray) -> list[int]:
    found, at = [], 0
    while at + 8 <= view.size:
        size = int(SIZES[int.from_bytes(view[at : at + 8].tobytes(), "big") % PAGE])
        if not size or at + size > view.size:
            break
        found.append(at)
        at += size
    return [*found, at]


@settings(max_examples=30)
@given(
    st.integers(0, 1 << 30),
    st.sampled_from([[0x22, 0x28], [0x28, 0x220], [0x22, 0x28, 0x220], [0x28]]),
    st.sampled_from(sorted(FILLS)),
    st.booleans(),
)
def test_they_are_a_beginning_of_those_found_one_by_one(
    seed: int, flags: list[int], fill: str, broken: bool
) -> None:
    """And all but the last, where no page deceives and nothing is broken."""
    rng = np.random.default_rng(seed)
    view = stretch(rng, flags, fill)
    if broken:
        view[rng.integers(view.size, size=view.size >> 12)] ^= 0xFF
    if view.size < LEAST_BYTES:
        return
    starts, end = follow(view, SIZES)
    *expected, last = one_by_one(view)
    assert [*starts.tolist(), end] == [*expected, last][: starts.size + 1]
    if fill == "nothing" and not broken:
        assert last - end < 3 * SIZES.max()


@given(st.binary(min_size=9, max_size=60), st.data())
def test_numbers_are_read_at_any_place(data: bytes, draw: st.DataObject) -> None:
    at = draw.draw(st.lists(st.integers(0, len(data) - 8)))
    found = numbers_at(np.frombuffer(data, np.uint8), np.array(at, np.int64), ">u8")
    assert found.tolist() == [int.from_bytes(data[it : it + 8], "big") for it in at]
