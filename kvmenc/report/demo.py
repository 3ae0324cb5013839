"""What ``kvmenc demo`` did, as a result and in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import msgspec
from rich.table import Table
from rich.text import Text

from kvmenc.capture import Capture
from kvmenc.plan import Parameters, Plan, make_plan
from kvmenc.report.terminal import columns, print_plan
from kvmenc.scratchrun import Part

if TYPE_CHECKING:
    from rich.console import Console

    from kvmenc.memory.layout import Layout
    from kvmenc.memory.slots import MemSlot

__all__ = ["Demo", "SlotRow", "print_demo"]

# For comparison: a rate at which the firmware is no bottleneck for this guest. None is published.
FAST_RATE_PPS = 20_000.0


class SlotRow(msgspec.Struct, frozen=True):
    """One memslot and where its pages lie.

    Attributes:
        slot_id: KVM's number.
        base_gfn: first gfn.
        npages: size.
        block: RAMBlock.
        block_page: page of the RAMBlock at which it begins.
        note: what is special about it.
    """

    slot_id: int
    base_gfn: int
    npages: int
    block: str
    block_page: int
    note: str


class Demo(msgspec.Struct, frozen=True, kw_only=True):
    """A whole demonstration.

    Attributes:
        schema: ``kvmenc.demo/1``.
        parts: what was real.
        slots: the layout.
        capture: what was seen.
        plan: what migrating it would do, with the firmware at its published rate.
        fast_plan: the same with a firmware of ``FAST_RATE_PPS``.
    """

    schema: Literal["kvmenc.demo/1"] = "kvmenc.demo/1"
    parts: list[Part]
    slots: list[SlotRow]
    capture: Capture
    plan: Plan
    fast_plan: Plan

    @classmethod
    def of(cls, parts: list[Part], layout: Layout, capture: Capture) -> Self:
        """Plan from the capture, and put it all together."""
        return cls(
            parts=parts,
            slots=[_row(layout, slot) for slot in layout.slots],
            capture=capture,
            plan=make_plan(capture, Parameters()),
            fast_plan=make_plan(capture, Parameters(private_rate_pps=FAST_RATE_PPS)),
        )


def _row(layout: Layout, slot: MemSlot) -> SlotRow:
    piece = layout.pieces_of(slot)[0]
    notes = []
    if slot.readonly:
        notes.append("read-only")
    if not slot.log_dirty:
        notes.append("no dirty log")
    if piece.block_page % 64:
        notes.append(f"offset % 64 = {piece.block_page % 64}")
    if piece.block.override:
        notes.append(f"taken for {piece.block.override}")
    return SlotRow(
        slot.slot_id, slot.base_gfn, slot.npages, piece.block.name, piece.block_page,
        ", ".join(notes),
    )  # fmt: skip


def print_demo(demo: Demo, console: Console) -> None:
    """What was real, the layout, the syncs, and the two plans."""
    console.print(Text("What was real", "bold"))
    console.print(_parts(demo.parts))
    console.print(Text("\nLayout (pages of 4 KiB)", "bold"))
    console.print(_layout(demo.slots))
    console.print(Text("\nSyncs: dirty first, then private; flipped pages are made dirty", "bold"))
    console.print(_syncs(demo.capture))
    console.print(Text("\nPlan with the firmware's published rate (400 pages/s)\n", "bold"))
    print_plan(demo.plan, console)
    console.print(Text(f"\nWith a firmware of {FAST_RATE_PPS:,.0f} pages/s", "bold"))
    console.print(Text(f"{demo.fast_plan.verdict}: {demo.fast_plan.reason}"))


def _parts(parts: list[Part]) -> Table:
    table = Table.grid(padding=(0, 2, 0, 0))
    for part in parts:
        real = Text("real", "green") if part.real else Text("fake", "yellow")
        table.add_row(part.name, real, Text(part.how))
    return table


def _layout(slots: list[SlotRow]) -> Table:
    table = columns("slot", "gfns", "pages", "RAMBlock", "offset", "note")
    for slot in slots:
        gfns = f"{slot.base_gfn:#x}-{slot.base_gfn + slot.npages - 1:#x}"
        table.add_row(
            str(slot.slot_id), gfns, str(slot.npages), slot.block, str(slot.block_page), slot.note
        )
    return table


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
