"""Whether looks still mean what they did: no other reader, and the memory layout as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.qemu.facts import NO_MIGRATION, ask_migration
from kvmenc.qemu.mtree import parse_mtree
from kvmenc.qemu.ramblock import parse_ramblock
from kvmenc.qemu.ranges import slot_ranges

if TYPE_CHECKING:
    from kvmenc.capture import EndedBy
    from kvmenc.qemu.monitor import Monitor
    from kvmenc.qemu.ranges import SlotRange

__all__ = ["Guard"]


class Guard:
    """Remembers what a QEMU was doing.

    A migration clears bits that the guest may have set again by the next look, so that nothing is
    seen of it in the bits. A slot that was deleted leaves its number to the next one, whose bits
    would be read for its own. (I/O ports and devices' registers may come and go.)

    Args:
        monitor: asked now, and each time again.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._slots = self._ask_slots()
        self._is_migrating = self._ask_migrating()

    def change(self) -> EndedBy | None:
        """What has changed since the guard was made.

        Raises:
            HostError: QEMU does not answer.
        """
        if self._ask_migrating() != self._is_migrating:
            return "another-reader"
        return "layout-changed" if self._ask_slots() != self._slots else None

    def _ask_migrating(self) -> bool:
        return ask_migration(self._monitor) not in NO_MIGRATION

    def _ask_slots(self) -> list[SlotRange]:
        views = parse_mtree(self._monitor.monitor("info mtree -f"))
        blocks = parse_ramblock(self._monitor.monitor("info ramblock"))
        return slot_ranges(views, blocks)[0]
