"""Which pages a guest means: some are told by number, some only once it is known what there is."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from fakekvm.guests import part_of
from fakekvm.scenario.sizes import SIZE, bytes_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["ALL", "GFNS_EXPECTED", "Gfns", "shares"]

GFNS_EXPECTED = (
    'page numbers: "all", a range like "0x100-0x7fff" (both ends are in it), addresses like'
    ' "64 MiB-96 MiB" (the end is not), a part of memory like "25%-50%", a memslot like "slot 0",'
    " or a list of these and of numbers below 2^40"
)
_PAGE_BYTES = 4096
_END = 1 << 40  # of 52-bit addresses
_NUMBER = r"(0x[0-9a-fA-F]{1,10}|\d{1,13})"
_RANGE = re.compile(rf"{_NUMBER}(?:\s*-\s*{_NUMBER})?")
_ADDRESSES = re.compile(rf"({SIZE})\s*-\s*({SIZE})")
_SLOT = re.compile(r"slot\s+(\d{1,5})")
_PERCENT = re.compile(r"(\d{1,3}(?:\.\d{1,9})?)\s*%\s*-\s*(\d{1,3}(?:\.\d{1,9})?)\s*%")


@dataclass(frozen=True, slots=True)
class _Part:
    """Of all memory, from one fraction of it to another."""

    start: Fraction
    stop: Fraction


@dataclass(frozen=True, slots=True)
class _Slot:
    """A memslot, by its id."""

    key: int


@dataclass(frozen=True, slots=True)
class Gfns:
    """Some pages of a guest; may be told before it has memory.

    Attributes:
        pieces: ranges of gfns, memslots, and parts of what memory there is.
    """

    pieces: tuple[_Piece, ...] = (_Part(Fraction(0), Fraction(1)),)

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

    def of(self, memory: Mapping[int, range]) -> list[range]:
        """The ranges meant in a guest with this memory; those told by number may lie outside.

        Args:
            memory: the gfns of its memslots, by their ids.
        """
        found: list[range] = []
        for piece in self.pieces:
            if isinstance(piece, range):
                found.append(piece)
            elif isinstance(piece, _Slot):
                found += [memory[piece.key]] if piece.key in memory else []
            else:
                found += shares(list(memory.values()), piece.start, piece.stop)
        return found


_Piece = range | _Part | _Slot

ALL = Gfns()
"""All memory there is."""


def shares(memory: Sequence[range], start: Fraction, stop: Fraction) -> list[range]:
    """A part of several ranges, as if they were one."""
    npages = sum(len(area) for area in memory)
    return part_of(memory, range(int(npages * start), int(npages * stop)))


def _piece(item: object) -> _Piece:
    if isinstance(item, int) and not isinstance(item, bool):
        return _checked(item, item)
    if not isinstance(item, str):
        raise TypeError
    text = item.strip()
    for pattern, read in _FORMS:
        if match := pattern.fullmatch(text):
            return read(match)
    raise ValueError


def _percent(match: re.Match[str]) -> _Part:
    start, stop = Fraction(match[1]) / 100, Fraction(match[2]) / 100
    if not start < stop <= 1:
        msg = "it is empty, or more than all"
        raise ValueError(msg)
    return _Part(start, stop)


def _addresses(match: re.Match[str]) -> range:
    start, stop = bytes_of(match[1]), bytes_of(match[2])
    if start % _PAGE_BYTES or stop % _PAGE_BYTES:
        msg = "an end is no multiple of 4 KiB"
        raise ValueError(msg)
    if start == stop:
        msg = "it is empty"
        raise ValueError(msg)
    return _checked(start // _PAGE_BYTES, stop // _PAGE_BYTES - 1)


_FORMS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], _Piece]], ...] = (
    (re.compile("all"), lambda _: _Part(Fraction(0), Fraction(1))),
    (_PERCENT, _percent),
    (_ADDRESSES, _addresses),
    (_SLOT, lambda match: _Slot(int(match[1]))),
    (_RANGE, lambda match: _checked(_int(match[1]), _int(match[2] or match[1]))),
)


def _int(digits: str) -> int:
    return int(digits, 16 if digits.startswith("0x") else 10)


def _checked(first: int, last: int) -> range:
    if last < first:
        msg = "its end is before its start"
        raise ValueError(msg)
    if not 0 <= first <= last < _END:
        raise ValueError
    return range(first, last + 1)
