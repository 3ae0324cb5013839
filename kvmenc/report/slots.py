"""Pieces of memslots as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.text import Text

from kvmenc.report.terminal import columns

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from kvmenc.capture import SlotFacts

__all__ = ["slots_table"]

_WHOLE = frozenset({"slot", "gfns", "pages", "offset"})


def slots_table(pieces: Iterable[tuple[SlotFacts, Sequence[str]]]) -> Table:
    """A piece to a row, each with what else is special about it; ids only where they are known."""
    rows = list(pieces)
    known = any(it.slot_id is not None for it, _ in rows)
    shown = (*(["slot"] if known else []), "gfns", "pages", "RAMBlock", "offset", "note")
    table = columns(*shown, whole=_WHOLE)
    for it, special in rows:
        row = [Text(f"{it.base_gfn:#x}-{it.base_gfn + it.npages - 1:#x}"), Text(f"{it.npages:,}")]
        row += [Text(it.block), Text(f"{it.block_page:,}"), Text(_note(it, special))]
        table.add_row(*([Text(str(it.slot_id))] if known else []), *row)
    return table


def _note(it: SlotFacts, special: Sequence[str]) -> str:
    notes = {
        "SMM": it.as_id > 0,
        "read-only": it.readonly,
        "unlogged": it.log_dirty is False and not it.readonly,
        f"offset % 64 = {it.block_page % 64}": it.block_page % 64,
    }
    return ", ".join([*(note for note, holds in notes.items() if holds), *special])
