"""Bitmaps as lists, for tests to compare."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kvmenc.memory.words import Words


def bits_of(words: Words, npages: int) -> list[int]:
    """The first ``npages`` bits; those behind them must be 0."""
    bits = np.unpackbits(words.view(np.uint8), bitorder="little")
    assert not bits[npages:].any()
    return [int(bit) for bit in bits[:npages]]
