"""The layout of a QEMU's guest, as a result and in a terminal of 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import msgspec
from rich.text import Text

from kvmenc import units
from kvmenc.capture import SlotFacts
from kvmenc.memory.slots import State
from kvmenc.qemu.costs import warnings_of
from kvmenc.report.slots import slots_table
from kvmenc.report.terminal import bullet, columns

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from kvmenc.memory.join import Piece
    from kvmenc.memory.slots import RamBlock
    from kvmenc.qemu.join import QemuLayout

__all__ = ["BlockRow", "LayoutReport", "PieceRow", "print_layout"]


class PieceRow(SlotFacts, frozen=True, kw_only=True):
    """A piece, with what else a running QEMU tells of it.

    Attributes:
        host_addr: where the first page lies in QEMU, in bytes; null where nobody told.
        guest_memfd: private pages lie in a guest_memfd; null where QEMU does not tell.
        aliased: the guest sees these pages at other gfns too.
    """

    host_addr: int | None
    guest_memfd: bool | None
    aliased: bool


class BlockRow(msgspec.Struct, frozen=True, kw_only=True):
    """A RAMBlock.

    Attributes:
        name: what a migration stream calls it.
        npages: its size.
        host_addr: where it lies in QEMU, in bytes; null where nobody told.
        override: what its pages are taken for, whatever the kernel says.
    """

    name: str
    npages: int
    host_addr: int | None
    override: State | None


class LayoutReport(msgspec.Struct, frozen=True, kw_only=True):
    """A layout, with what it costs.

    Attributes:
        schema: ``kvmenc.layout/1``.
        source: where it was read.
        page_size: in bytes.
        pieces: by address space and gfn.
        blocks: in QEMU's order, those that the guest does not see now too.
        warnings: what costs at migration or cannot be known, a line each.
    """

    schema: Literal["kvmenc.layout/1"] = "kvmenc.layout/1"
    source: str
    page_size: int
    pieces: list[PieceRow]
    blocks: list[BlockRow]
    warnings: list[str]

    @classmethod
    def of(cls, qemu: QemuLayout, source: str) -> Self:
        """Put it all together."""
        layout = qemu.layout
        return cls(
            source=source,
            page_size=layout.page_size,
            pieces=[_piece(qemu, it) for slot in layout.slots for it in layout.pieces_of(slot)],
            blocks=[_block(qemu, block) for block in layout.blocks],
            warnings=warnings_of(qemu),
        )


def _piece(qemu: QemuLayout, it: Piece) -> PieceRow:
    slot = it.slot
    return PieceRow(
        as_id=slot.as_id,
        slot_id=slot.slot_id if qemu.ids_known else None,
        base_gfn=slot.base_gfn + it.slot_page,
        npages=it.npages,
        block=it.block.name,
        block_page=it.block_page,
        host_addr=qemu.host_addr(slot.userspace_addr + it.slot_page * qemu.layout.page_size),
        readonly=slot.readonly,
        log_dirty=slot.log_dirty if qemu.ids_known else None,
        guest_memfd=slot in qemu.guest_memfd if qemu.ids_known else None,
        aliased=it.alias is not None,
    )


def _block(qemu: QemuLayout, it: RamBlock) -> BlockRow:
    return BlockRow(
        name=it.name,
        npages=it.npages,
        host_addr=qemu.host_addr(it.host_addr),
        override=it.override,
    )


def print_layout(report: LayoutReport, console: Console) -> None:
    """The slots, then RAMBlocks that are in none, then the warnings."""
    size = units.format_size(sum(block.npages for block in report.blocks) * report.page_size)
    console.print(Text(f"Memory of {report.source}: {len(report.blocks)} RAMBlocks, {size}"))
    console.print(Text("\nSlots (pages of 4 KiB)", "bold"))
    console.print(_slots(report))
    seen = {piece.block for piece in report.pieces}
    if hidden := [block for block in report.blocks if block.name not in seen]:
        console.print(Text("\nRAMBlocks in no slot now, migrated all the same", "bold"))
        console.print(_hidden(hidden))
    if any(piece.host_addr is None for piece in report.pieces):
        console.print(Text("\nThese texts do not tell host addresses."))
    if report.warnings:
        console.print(Text("\nWarnings", "bold"))
    for line in report.warnings:
        console.print(bullet(line))


def _slots(report: LayoutReport) -> Table:
    override = {block.name: block.override for block in report.blocks}
    return slots_table((it, _special(it, override[it.block])) for it in report.pieces)


def _special(it: PieceRow, override: State | None) -> list[str]:
    notes = {
        "guest_memfd": it.guest_memfd,
        "seen twice": it.aliased,
        f"taken for {override}": override,
    }
    return [note for note, holds in notes.items() if holds]


def _hidden(blocks: list[BlockRow]) -> Table:
    table = columns("pages", "RAMBlock", "note", whole={"pages"})
    for it in blocks:
        note = f"taken for {it.override}" if it.override else ""
        table.add_row(Text(f"{it.npages:,}"), Text(it.name), Text(note))
    return table
