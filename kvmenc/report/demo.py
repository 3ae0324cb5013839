"""What ``kvmenc demo`` did, as a result and in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import msgspec
from rich.text import Text

from kvmenc.capture import Capture
from kvmenc.plan import Parameters, Plan, make_plan
from kvmenc.report.slots import slots_table
from kvmenc.report.terminal import (
    bullet,
    columns,
    parts_table,
    print_plan,
    sentence,
    verdict_line,
)
from kvmenc.scratchrun import Part

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Demo", "print_demo"]

# For comparison: a rate at which the firmware is no bottleneck for this guest. None is published.
FAST_RATE_PPS = 20_000.0


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """A whole demonstration.

    Attributes:
        schema: ``kvmenc.demo/1``.
        parts: what was real.
        capture: what was seen.
        plan: what migrating it would do, with the firmware at its published rate.
        fast_plan: the same with a firmware of ``FAST_RATE_PPS``.
    """

    schema: Literal["kvmenc.demo/1"] = "kvmenc.demo/1"
    parts: list[Part]
    capture: Capture
    plan: Plan
    fast_plan: Plan

    @classmethod
    def of(cls, parts: list[Part], capture: Capture) -> Self:
        """Plan from the capture, and put it all together."""
        return cls(
            parts=parts,
            capture=capture,
            plan=make_plan(capture, Parameters()),
            fast_plan=make_plan(capture, Parameters(private_rate_pps=FAST_RATE_PPS)),
        )


def print_demo(demo: Demo, console: Console) -> None:
    """What was real, the layout, the syncs, and the two plans."""
    console.print(Text("What was real", "bold"))
    console.print(parts_table((it.name, it.real, it.how) for it in demo.parts))
    console.print(Text("\nLayout (pages of 4 KiB)", "bold"))
    console.print(slots_table((slot, ()) for slot in demo.capture.slots))
    for note in demo.capture.notes:
        console.print(bullet(note))
    console.print(Text("\nSyncs: dirty first, then private; flipped pages are made dirty", "bold"))
    console.print(_syncs(demo.capture))
    console.print(Text("\nPlan with the firmware's published rate (400 pages/s)\n", "bold"))
    print_plan(demo.plan, console)
    console.print(Text(f"\nWith a firmware of {FAST_RATE_PPS:,.0f} pages/s", "bold"))
    console.print(Text(verdict_line(demo.fast_plan)))
    console.print(Text(sentence(demo.fast_plan.reason)))


def _syncs(capture: Capture) -> Table:
    table = columns("at ms", "dirty private", "dirty shared", "flipped", "dirty since start")
    for sample, point in zip(capture.samples, capture.curve, strict=True):
        table.add_row(
            f"{sample.t_ms:.0f}",
            f"{sample.dirty_private_pages:,}",
            f"{sample.dirty_shared_pages:,}",
            f"{sample.flipped_pages:,}",
            f"{point.private_pages + point.shared_pages:,}",
        )
    return table
