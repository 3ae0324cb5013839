"""The slow and obvious counterparts of the word kernels: a bitmap as one int, bit i = page i."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from kvmenc.memory.words import Words


def to_int(words: Words) -> int:
    """A bitmap as one int."""
    return int.from_bytes(words.tobytes(), "little")


def to_words(bits: int, nwords: int) -> Words:
    """An int as a bitmap of ``nwords`` words."""
    return np.frombuffer(bits.to_bytes(nwords * 8, "little"), "<u8").copy()


def mask(start: int, nbits: int) -> int:
    """Ones at ``start .. start + nbits``."""
    return ((1 << nbits) - 1) << start


def moved(src: int, src_bit: int, dst_bit: int, nbits: int) -> int:
    """``nbits`` bits of ``src`` from ``src_bit`` on, lying at ``dst_bit``; 0 elsewhere."""
    return (src >> src_bit & mask(0, nbits)) << dst_bit


def copied(dst: int, dst_bit: int, src: int, src_bit: int, nbits: int) -> int:
    """``dst`` with a range replaced by bits of ``src``."""
    return dst & ~mask(dst_bit, nbits) | moved(src, src_bit, dst_bit, nbits)


def runs(bits: int, nbits: int) -> list[tuple[int, int]]:
    """Runs of ones below ``nbits``, as (start, end), found bit by bit."""
    found: list[tuple[int, int]] = []
    for page in range(nbits):
        if not bits >> page & 1:
            continue
        if found and found[-1][1] == page:
            found[-1] = (found[-1][0], page + 1)
        else:
            found.append((page, page + 1))
    return found
