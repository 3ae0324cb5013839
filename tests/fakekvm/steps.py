"""Steps of scripted guests in a form that tests can compare."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from fakekvm.guests import WritePages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from fakekvm.guests import Step


def pages(step: Step) -> list[int]:
    assert isinstance(step, WritePages)
    return [int(gfn) for gfn in step.gfns]


def as_text(steps: Iterable[Step], count: int) -> list[str]:
    """The first so many, each with all that it does."""
    return [
        f"{pages(step)} {step.value}" if isinstance(step, WritePages) else str(step)
        for step in islice(steps, count)
    ]
