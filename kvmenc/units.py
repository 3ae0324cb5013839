"""Sizes, bandwidths, times and page rates: read and printed in one place.

A unit must say what it means on its own. Refused, with what to write instead:

* ``1Gb``, ``1Gb/s``, ``1Gbps``, ``1GBps``: the case of one letter would decide on bits or bytes;
* ``1G``, ``1000``: half a unit, or none;
* ``1GB`` as a bandwidth (per second?), ``10m`` as a time (minutes or milliseconds?).

``k M G T`` are powers of 1000, ``Ki Mi Gi Ti`` powers of 1024. What is printed has three
significant digits and can be read back.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = [
    "format_bandwidth",
    "format_bit_rate",
    "format_page_rate",
    "format_size",
    "format_time",
    "parse_bandwidth_bytes_per_s",
    "parse_page_rate_pps",
    "parse_share",
    "parse_size_bytes",
    "parse_time_ms",
]

_NUMBER_UNIT = re.compile(r"([+-]?\d{1,30}(?:\.\d{1,30})?) ?(\D\S*)?", re.ASCII)
_MAYBE_BYTES = re.compile(r"([kmgt]?)(i?)b?(?:ps|/s)?", re.IGNORECASE)

_DECIMAL = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
_SIZES = {"KB": 1000} | {f"{prefix}B": n for prefix, n in {**_DECIMAL, **_BINARY}.items()}
_BYTE_RATES = {f"{unit}/s": factor for unit, factor in _SIZES.items()}
# "bit" spelled out needs no case: tc writes 10gbit.
_BIT_RATES = {
    f"{spelling}bit{per}": factor / 8
    for prefix, factor in _DECIMAL.items()
    for spelling in (prefix, prefix.lower())
    for per in ("", "/s")
}
_TIMES_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "min": 60e3, "h": 3600e3, "d": 86400e3}


def _advise_size(number: str, unit: str) -> str | None:
    match = _MAYBE_BYTES.fullmatch(unit)
    if match is None:
        return None
    prefix = match[1].upper()
    decimal = f"{number}{prefix.replace('K', 'k')}B"
    return (
        f"1000s or 1024s? write {decimal} or {number}{prefix}iB" if prefix else f"write {decimal}"
    )


def _advise_bandwidth(number: str, unit: str) -> str | None:
    if f"{unit}/s" in _BYTE_RATES:
        return f"per second? write {number}{unit}/s"
    match = _MAYBE_BYTES.fullmatch(unit)
    if match is None:
        return None
    prefix = match[1].upper().replace("K", "k")
    return f"bits or bytes? write {number}{prefix}bit or {number}{prefix}B/s"


def _advise_time(number: str, unit: str) -> str | None:
    if unit.lower() not in {"m", "ms", "min"}:
        return None
    return f"minutes or milliseconds? write {number}min or {number}ms"


@dataclass(frozen=True, slots=True)
class _Quantity:
    """What may be written for one kind of number.

    Attributes:
        name: as an error calls it.
        example: how it is written.
        units: what one of each unit is worth in the base unit.
        least: a smaller number (in the base unit) is a slip of the pen.
        most: likewise a larger one.
        advise: turns a number and a unit not in ``units`` into what to write instead.
    """

    name: str
    example: str
    units: Mapping[str, float]
    least: float
    most: float
    advise: Callable[[str, str], str | None] = lambda _number, _unit: None

    def parse(self, text: str, *, zero_ok: bool) -> float:
        match = _NUMBER_UNIT.fullmatch(text.strip())
        if match is None:
            raise InputError(f"{text[:40]!r} is not a {self.name}: write it like {self.example}")
        number, unit = match[1], match[2] or ""
        if unit not in self.units:
            raise InputError(self._no_unit(text[:40], number, unit))
        return self._bounded(text, float(number) * self.units[unit], zero_ok=zero_ok)

    def _no_unit(self, text: str, number: str, unit: str) -> str:
        if not unit:
            return f"{text!r} has no unit: write it like {self.example}"
        if advice := self.advise(number, unit):
            return f"{text!r} does not say in what unit: {advice}"
        return f"{text!r}: {unit[:20]!r} is no unit of a {self.name}: write it like {self.example}"

    def _bounded(self, text: str, value: float, *, zero_ok: bool) -> float:
        if value == 0 and zero_ok:
            return value
        if value <= 0:
            least = "0 or more" if zero_ok else "more than 0"
            raise InputError(f"{text[:40]!r}: a {self.name} must be {least}")
        if not self.least <= value <= self.most:
            size = "small" if value < self.least else "large"
            raise InputError(f"{text[:40]!r} is too {size} to be a {self.name}")
        return value


_SIZE = _Quantity("size", "4GiB or 512MB", _SIZES, 1, 2**60, _advise_size)
_BANDWIDTH = _Quantity(
    "bandwidth", "1GB/s or 10Gbit", {**_BYTE_RATES, **_BIT_RATES}, 1, 1e13, _advise_bandwidth
)
_TIME = _Quantity("time", "300ms, 2s or 10min", _TIMES_MS, 1e-3, 366 * 24 * 3600e3, _advise_time)
_PAGE_RATE = _Quantity("page rate", "400pps", {"pps": 1, "pages/s": 1}, 1e-3, 1e9)
_SHARE = _Quantity("share", "40%", {"%": 0.01}, 1e-9, 1)


def parse_size_bytes(text: str, *, zero_ok: bool = False) -> int:
    """Read a size such as ``4GiB`` or ``512MB``; returns whole bytes.

    Raises:
        InputError: unit missing, unknown or ambiguous; negative, zero (unless ``zero_ok``), absurd.
    """
    return round(_SIZE.parse(text, zero_ok=zero_ok))


def parse_bandwidth_bytes_per_s(text: str, *, zero_ok: bool = False) -> float:
    """Read a bandwidth such as ``1GB/s``, ``128MiB/s`` or ``10Gbit``; returns bytes per second.

    Raises:
        InputError: as :func:`parse_size_bytes`.
    """
    return _BANDWIDTH.parse(text, zero_ok=zero_ok)


def parse_time_ms(text: str, *, zero_ok: bool = False) -> float:
    """Read a time such as ``300ms``, ``2s``, ``10min``, ``1h`` or ``2d``; returns milliseconds.

    Raises:
        InputError: as :func:`parse_size_bytes`.
    """
    return _TIME.parse(text, zero_ok=zero_ok)


def parse_page_rate_pps(text: str, *, zero_ok: bool = False) -> float:
    """Read a page rate such as ``400pps``; returns pages per second.

    Raises:
        InputError: as :func:`parse_size_bytes`.
    """
    return _PAGE_RATE.parse(text, zero_ok=zero_ok)


def parse_share(text: str) -> float:
    """Read a share such as ``40%``, ``0%`` too; returns a number between 0 and 1.

    Raises:
        InputError: as :func:`parse_size_bytes`, or more than all.
    """
    return _SHARE.parse(text, zero_ok=True)


def _digits(value: float) -> str:
    """Three significant digits, never an exponent: ``1.25``, ``300``, ``1010``."""
    decimals = max(0, 2 - math.floor(math.log10(value))) if value > 0 else 0
    text = f"{value:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _format(value: float, ladder: Sequence[tuple[str, float, float]]) -> str:
    """Print in the first ``(unit, factor, least)`` that brings the number to ``least`` or more."""
    for unit, factor, least in ladder:
        number = _digits(value / factor)
        if float(number) >= least:
            return f"{number} {unit}"
    unit, factor, _ = ladder[-1]
    return f"{_digits(value / factor)} {unit}"


def _ladder(units: Mapping[str, float], *names: str) -> list[tuple[str, float, float]]:
    return [(name, units[name], 1) for name in names]


_SIZE_LADDER = _ladder(_SIZES, "TiB", "GiB", "MiB", "KiB", "B")
_BANDWIDTH_LADDER = _ladder(_BYTE_RATES, "TB/s", "GB/s", "MB/s", "kB/s", "B/s")
_BIT_RATE_LADDER = _ladder(_BIT_RATES, "Tbit/s", "Gbit/s", "Mbit/s", "kbit/s", "bit/s")
# 90 s reads better than 1.5 min, and 90 min better than 1.5 h.
_TIME_LADDER = [
    *((name, _TIMES_MS[name], 2) for name in ("d", "h", "min")),
    *((name, _TIMES_MS[name], 1) for name in ("s", "ms", "us")),
]


def format_size(size_bytes: float) -> str:
    """Print bytes: ``format_size(2**30) == "1 GiB"``."""
    return _format(size_bytes, _SIZE_LADDER)


def format_bandwidth(bytes_per_s: float) -> str:
    """Print bytes per second: ``format_bandwidth(1.25e9) == "1.25 GB/s"``."""
    return _format(bytes_per_s, _BANDWIDTH_LADDER)


def format_bit_rate(bytes_per_s: float) -> str:
    """Print bytes per second as bits: ``format_bit_rate(1.25e9) == "10 Gbit/s"``."""
    return _format(bytes_per_s, _BIT_RATE_LADDER)


def format_time(ms: float) -> str:
    """Print milliseconds: ``format_time(600_000) == "10 min"``."""
    return _format(ms, _TIME_LADDER)


def format_page_rate(pps: float) -> str:
    """Print pages per second: ``format_page_rate(400) == "400 pages/s"``."""
    return f"{_digits(pps)} pages/s"
