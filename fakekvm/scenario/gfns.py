"""Which pages a guest means: some are told by number, some only once it is known what there is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from fakekvm.guests import part_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ALL", "GFNS_EXPECTED", "Gfns", "shares"]

GFNS_EXPECTED = (
    'page numbers: "all", a range like "0x100-0x7fff" (both ends are in it), a part of memory like'
    ' "25%-50%", or a list of these and of numbers below 2^40'
)
_END = 1 << 40  # of 52-bit addresses
_NUMBER = r"(0x[0-9a-fA-F]{1,10}|\d{1,13})"
_RANGE = re.compile(rf"{_NUMBER}(?:\s*-\s*{_NUMBER})?")
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%\s*-\s*(\d{1,3}(?:\.\d{1,9})?)\s*%")


@dataclass(frozen=True, slots=True)
class _Part:
    """Of all memory, from one fraction of it to another."""

    start: Fraction
    stop: Fraction


@dataclass(frozen=True, slots=True)
class Gfns:
    """Some pages of a guest; may be told before it has memory.

    Attributes:
        pieces: ranges of gfns, and parts of what memory there is.
    """

    pieces: tuple[range | _Part, ...] = (_Part(Fraction(0), Fraction(1)),)

    @classmethod
    def read(cls, value: Any) -> Gfns:  # noqa: ANN401 - whatever stands in the file
        """As written in a scenario.

        Raises:
            ValueError: it is no such thing.
            TypeError: likewise.
        """
        items = value if isinstance(value, list) else [value]
        if not items:
            raise ValueError
        return cls(tuple(_piece(item) for item in items))

    def of(self, memory: Sequence[range]) -> list[range]:
        """The ranges meant in a guest with this memory; those told by number may lie outside."""
        found: list[range] = []
        for piece in self.pieces:
            if isinstance(piece, range):
                found.append(piece)
            else:
                found += shares(memory, piece.start, piece.stop)
        return found


ALL = Gfns()
"""All memory there is."""


def shares(memory: Sequence[range], start: Fraction, stop: Fraction) -> list[range]:
    """A part of several ranges, as if they were one."""
    npages = sum(len(area) for area in memory)
    return part_of(memory, range(int(npages * start), int(npages * stop)))


def _piece(item: object) -> range | _Part:
    if isinstance(item, int) and not isinstance(item, bool):
        return _checked(item, item)
    if not isinstance(item, str):
        raise TypeError
    text = item.strip()
    if text == "all":
        return _Part(Fraction(0), Fraction(1))
    if match := _PERCENT.fullmatch(text):
        start, stop = Fraction(match[1]) / 100, Fraction(match[2]) / 100
        if not start < stop <= 1:
            msg = "it is empty, or more than all"
            raise ValueError(msg)
        return _Part(start, stop)
    if match := _RANGE.fullmatch(text):
        return _checked(_int(match[1]), _int(match[2] or match[1]))
    raise ValueError


def _int(digits: str) -> int:
    return int(digits, 16 if digits.startswith("0x") else 10)


def _checked(first: int, last: int) -> range:
    if last < first:
        msg = "its end is before its start"
        raise ValueError(msg)
    if not 0 <= first <= last < _END:
        raise ValueError
    return range(first, last + 1)
