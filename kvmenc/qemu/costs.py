"""What of a layout costs at migration, or cannot be seen: one line each."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvmenc.memory.join import Piece
    from kvmenc.memory.slots import MemSlot
    from kvmenc.qemu.join import QemuLayout

__all__ = ["warnings_of"]

_MOST_NAMED = 6
# Below 1 MiB the chipset's PAM registers and option ROMs cut RAM up.
_FIRST_MIB_GFNS = 256


def warnings_of(it: QemuLayout) -> list[str]:
    """Every warning, the costliest first."""
    return [*_guest_memfd(it), *_unlogged(it), *_unaligned(it), *_fragments(it), *it.left_out]


def _guest_memfd(it: QemuLayout) -> Iterator[str]:
    if it.guest_memfd:
        yield (
            f"{_list(it.guest_memfd, it)} with guest_memfd: KVM keeps no dirty log for them, what "
            "the guest writes there cannot be known"
        )


def _unlogged(it: QemuLayout) -> Iterator[str]:
    """Log flags are known from a trace only."""
    slots = [
        slot
        for slot in it.layout.slots
        if not slot.log_dirty and not slot.readonly and slot not in it.guest_memfd
    ]
    if it.ids_known and slots:
        yield (
            f"{_list(slots, it)} without dirty log: what the guest writes there is not recorded "
            "until QEMU turns it on, as a migration does"
        )


def _unaligned(it: QemuLayout) -> Iterator[str]:
    """A slot's bits that do not begin a word of its RAMBlock's.

    QEMU v10.0, include/exec/ram_addr.h, cpu_physical_memory_set_dirty_lebitmap: whole words only
    if the first page is a multiple of 64, else one by one. RAMBlocks themselves begin at such a
    multiple (system/physmem.c, find_ram_offset). KVM finds a read-only slot never dirty.
    """
    for slot in it.layout.slots:
        for piece in it.layout.pieces_of(slot):
            if piece.block_page % 64 and not slot.readonly:
                yield (
                    f"{_name_of(slot, it)}: begins at page {piece.block_page} of "
                    f"{piece.block.name}, {piece.block_page % 64} past a multiple of 64; QEMU "
                    "syncs its dirty pages one by one"
                )


def _fragments(it: QemuLayout) -> Iterator[str]:
    slots = [slot for slot in it.layout.slots if slot.as_id == 0]
    low = [slot for slot in slots if slot.base_gfn < _FIRST_MIB_GFNS and not slot.readonly]
    if len(low) > 1:
        yield f"the first MiB is cut into {len(low)} slots of RAM (option ROMs, PAM registers)"
    roms = [slot for slot in slots if slot.readonly]
    if roms:
        yield (
            f"{_list(roms, it)} read-only (ROM, flash): never in the dirty log; QEMU itself marks "
            "what it writes there"
        )
    pieces = list(chain.from_iterable(it.layout.pieces_of(slot) for slot in it.layout.slots))
    for block in it.layout.blocks:
        inside = [piece for piece in pieces if piece.block == block and not piece.slot.readonly]
        hidden = block.npages - _covered(inside)
        if inside and hidden:
            yield (
                f"{block.name}: {hidden} of its pages lie in no slot (under ROM or a device); "
                "they are migrated all the same"
            )


def _covered(pieces: Iterable[Piece]) -> int:
    """How many pages of their RAMBlock lie in a piece; each once."""
    covered = reached = 0
    for piece in sorted(pieces, key=lambda it: it.block_page):
        covered += max(0, piece.block_end - max(reached, piece.block_page))
        reached = max(reached, piece.block_end)
    return covered


def _name_of(slot: MemSlot, it: QemuLayout) -> str:
    """By its number, or by its first gfn where that is not KVM's."""
    return str(slot) if it.ids_known else f"gfn {slot.base_gfn:#x}"


def _list(slots: Sequence[MemSlot], it: QemuLayout) -> str:
    """The slots by name, the first few of many."""
    named = ", ".join(_name_of(slot, it) for slot in slots[:_MOST_NAMED])
    more = len(slots) - _MOST_NAMED
    return f"{named} and {more} more" if more > 0 else named
