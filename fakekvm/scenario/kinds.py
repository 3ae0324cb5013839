"""Kinds of values in a scenario: what is expected, and how it is read."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from fakekvm.scenario.gfns import GFNS_EXPECTED, Gfns
from fakekvm.scenario.sizes import read_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "BYTES",
    "FLAG",
    "GFNS",
    "SECONDS",
    "TEXT",
    "Kind",
    "choice",
    "number",
    "whole",
    "wholes",
]

T = TypeVar("T")

_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(us|ms|s|min)")
_TIME_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}
_LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """One kind of value.

    Attributes:
        expected: what it is, for people.
        read: makes it of what stands in the file; ValueError or TypeError, if it is something else.
        names: the texts it can be, if they are few.
    """

    expected: str
    read: Callable[[Any], T]
    names: Sequence[str] = field(default=())


def whole(low: int, high: int) -> Kind[int]:
    """A whole number within bounds."""

    def read(value: Any) -> int:  # noqa: ANN401 - whatever stands in the file
        if not isinstance(value, int) or isinstance(value, bool):
            raise TypeError
        if not low <= value <= high:
            raise ValueError
        return value

    return Kind(f"a whole number from {low} to {high}", read)


def number(low: float, high: float) -> Kind[float]:
    """A number within bounds."""

    def read(value: Any) -> float:  # noqa: ANN401 - whatever stands in the file
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise TypeError
        if not low <= value <= high:  # NaN is not, either
            raise ValueError
        return float(value)

    return Kind(f"a number from {low:g} to {high:g}", read)


def wholes(low: int, high: int) -> Kind[tuple[int, ...]]:
    """A list of different whole numbers."""
    one = whole(low, high)

    def read(value: Any) -> tuple[int, ...]:  # noqa: ANN401 - whatever stands in the file
        if not isinstance(value, list) or not value:
            raise TypeError
        found = tuple(one.read(item) for item in value)
        if len(set(found)) < len(found):
            msg = "one comes twice"
            raise ValueError(msg)
        return found

    return Kind(f"a list of different whole numbers from {low} to {high}", read)


def choice(names: Sequence[str]) -> Kind[str]:
    """One of several names."""

    def read(value: Any) -> str:  # noqa: ANN401 - whatever stands in the file
        if value not in names:
            raise ValueError
        return str(value)

    expected = f"one of {', '.join(names)}" if len(names) > 1 else f'"{names[0]}"'
    return Kind(expected, read, names)


def _text(value: Any) -> str:  # noqa: ANN401 - whatever stands in the file
    if not isinstance(value, str):
        raise TypeError
    return value


def _flag(value: Any) -> bool:  # noqa: ANN401 - whatever stands in the file
    if not isinstance(value, bool):
        raise TypeError
    return value


def _seconds(value: Any) -> float:  # noqa: ANN401 - whatever stands in the file
    if isinstance(value, str):
        match = _TIME.fullmatch(value.strip())
        if match is None:
            raise ValueError
        value = float(match[1]) * _TIME_UNITS[match[2]]
    return number(0, _LONGEST_S).read(value)


BYTES = Kind('bytes below 2^52, or a text like "4 MiB"', read_bytes)
TEXT = Kind("a text", _text)
FLAG = Kind("true or false", _flag)
SECONDS = Kind('seconds up to 3600, or a text like "50 ms", "1.5 s" or "2 min"', _seconds)
GFNS = Kind(GFNS_EXPECTED, Gfns.read)
