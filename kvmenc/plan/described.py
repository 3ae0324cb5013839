"""A guest that nobody captured, described by a few numbers.

It writes pages of a working set by chance, each as likely as the others, so that of ``W`` pages
``W * (1 - exp(-rate * t / W))`` are dirty after ``t``. Real guests have hotter and colder pages: a
capture is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from kvmenc.capture import BlockFacts, Capture, CurvePoint
from kvmenc.errors import InputError
from kvmenc.units import format_size

__all__ = ["Described"]

_PAGE_BYTES = 4096
#: Some of each doubling, from 10 ms to 20 minutes: straight lines between are within 0.1 %.
_TIMES_MS = tuple(10 * 2 ** (step / 8) for step in range(137))
_MOST_BYTES = 2**52


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is known of a guest.

    Attributes:
        memory_bytes: its RAM.
        zero_share: of its shared pages, those that hold only zeros.
        private_share: of its pages; of the working set as many.
        dirty_bytes_per_s: how fast it writes pages, each time counted.
        working_set_bytes: those it writes; None: all that are not zero.

    Raises:
        InputError: it cannot be so.
    """

    memory_bytes: float
    zero_share: float = 0.0
    private_share: float = 0.0
    dirty_bytes_per_s: float = 0.0
    working_set_bytes: float | None = None

    def __post_init__(self) -> None:
        """Refuse what no guest is."""
        if not _PAGE_BYTES <= self.memory_bytes <= _MOST_BYTES:
            raise InputError(
                f"a guest's memory is 4 KiB to 4 PiB, not {format_size(self.memory_bytes)}"
            )
        for name in ("zero_share", "private_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie between 0 and 1, got {getattr(self, name):g}")
        if not 0 <= self.dirty_bytes_per_s < math.inf:
            raise InputError(f"dirty_bytes_per_s must be 0 or more: {self.dirty_bytes_per_s:g}")
        working_set = self.working_set_bytes
        if working_set is not None and not 0 < working_set <= self.memory_bytes:
            raise InputError(
                "a working set is more than 0 and no more than the memory: "
                f"{format_size(working_set)} of {format_size(self.memory_bytes)}"
            )

    def capture(self) -> Capture:
        """The guest as a plan takes it."""
        npages = int(self.memory_bytes // _PAGE_BYTES)
        private = round(npages * self.private_share)
        zero = round((npages - private) * self.zero_share)
        in_use = npages - zero
        wanted = in_use if self.working_set_bytes is None else self.working_set_bytes / _PAGE_BYTES
        working_set = min(float(in_use), wanted)
        share = private / in_use if in_use else 0.0
        return Capture(
            source="a guest described by numbers, not captured",
            private_source="the description",
            blocks=(BlockFacts("ram", npages, private, zero, 0),),
            curve=tuple(_points(working_set, self.dirty_bytes_per_s / _PAGE_BYTES / 1000, share)),
        )


def _points(working_set: float, pages_per_ms: float, private_share: float) -> list[CurvePoint]:
    points = []
    for ms in _TIMES_MS:
        pages = -working_set * math.expm1(-pages_per_ms * ms / working_set) if working_set else 0.0
        shared = round(pages * (1 - private_share))
        points.append(CurvePoint(ms, round(pages * private_share), shared))
    return points
