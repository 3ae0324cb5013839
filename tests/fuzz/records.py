"""Sound records of a rehearsal's line, in plain text."""

from __future__ import annotations

import numpy as np

from kvmenc.rehearsal.records import PagesRecord
from tests.stream.raw import PAGE

__all__ = ["RECORDS", "SIZES"]

#: Pages of each RAMBlock that the records are for.
SIZES = [64, 8]


def _record(block: int, normal: list[int], zero: list[int], encrypted: list[int]) -> bytes:
    count = len(encrypted)
    return PagesRecord(
        block=block,
        normal=np.array(normal, np.int64),
        contents=np.full((len(normal), PAGE), 0xAA, np.uint8),
        zero=np.array(zero, np.int64),
        encrypted=np.array(encrypted, np.int64),
        headers=np.full((count, 52), 0xBB, np.uint8),
        transports=np.full((count, PAGE), 0xCC, np.uint8),
    ).encode()


RECORDS = [
    _record(0, [], [3, 5, 9, 63], []),
    _record(1, [0, 7], [1], [2]),
    _record(0, [], [], [1, 2]),
]
