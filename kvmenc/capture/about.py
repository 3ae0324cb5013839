"""What a capture says of its origin: when and with what it was made, and the guest's layout."""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING

from kvmenc import package_version
from kvmenc.capture.model import Provenance, SlotFacts

if TYPE_CHECKING:
    from kvmenc.capture.model import How
    from kvmenc.memory.layout import Layout

__all__ = ["provenance_now", "slot_facts"]


def provenance_now(
    how: How, *, qemu: str | None = None, machine: str | None = None, vm_kind: str | None = None
) -> Provenance:
    """The provenance of a capture that ends now, on this host, by this kvmenc."""
    return Provenance(
        captured_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        kvmenc_version=package_version(),
        how=how,
        kernel=platform.release(),
        qemu=qemu,
        machine=machine,
        vm_kind=vm_kind,
    )


def slot_facts(layout: Layout, *, ids_known: bool = True) -> tuple[SlotFacts, ...]:
    """The pieces of a layout, by address space and gfn.

    Args:
        layout: memslots and RAMBlocks.
        ids_known: whether the memslots' ids and dirty logs are KVM's own, not numbered by us.
    """
    return tuple(
        SlotFacts(
            as_id=slot.as_id,
            slot_id=slot.slot_id if ids_known else None,
            base_gfn=slot.base_gfn + piece.slot_page,
            npages=piece.npages,
            block=piece.block.name,
            block_page=piece.block_page,
            readonly=slot.readonly,
            log_dirty=slot.log_dirty if ids_known else None,
        )
        for slot in layout.slots
        for piece in layout.pieces_of(slot)
    )
