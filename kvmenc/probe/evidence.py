"""Evidence: one thing read from the host, where it was read, and what it means."""

from __future__ import annotations

import msgspec

__all__ = ["Evidence", "Verdict"]


class Evidence(msgspec.Struct, frozen=True):
    """One thing that was looked at.

    Attributes:
        name: what it is.
        value: what was read, as text; ``absent`` where it does not exist.
        source: where: an ioctl, a file, a CPUID leaf.
        says: what follows from the value; one line.
    """

    name: str
    value: str
    source: str
    says: str


class Verdict(msgspec.Struct, frozen=True):
    """An answer drawn from the evidence.

    Attributes:
        question: what was asked.
        answer: ``yes``, ``no`` or ``unknown``.
        because: the reason, and what to do about it; one line.
    """

    question: str
    answer: str
    because: str
