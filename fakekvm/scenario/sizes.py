"""Sizes of memory, as people write them: "64 MiB"."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

__all__ = ["SIZE", "bytes_of", "read_bytes"]

SIZE = r"\d{1,16}(?:\.\d{1,9})?\s*(?:[KMGT]i)?B"
"""A pattern without groups."""

_SIZE = re.compile(SIZE)
_PARTS = re.compile(r"([\d.]+)\s*([KMGT]?)i?B")
_SHIFTS = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_END = 1 << 52  # of addresses


def bytes_of(text: str) -> int:
    """A size that ``SIZE`` matches.

    Raises:
        ValueError: it is no whole number of bytes, or too many.
    """
    match = _PARTS.fullmatch(text)
    assert match, "it looks like a size"
    value = Fraction(match[1]) * (1 << _SHIFTS[match[2]])
    if value.denominator != 1:
        msg = "it is no whole number of bytes"
        raise ValueError(msg)
    if value > _END:
        msg = "it is beyond all addresses"
        raise ValueError(msg)
    return int(value)


def read_bytes(value: Any) -> int:  # noqa: ANN401 - whatever stands in the file
    """A number of bytes, or a size.

    Raises:
        ValueError: it is none.
        TypeError: likewise.
    """
    if isinstance(value, str):
        if not _SIZE.fullmatch(value.strip()):
            raise ValueError
        return bytes_of(value.strip())
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    if not 0 <= value < _END:
        raise ValueError
    return value
