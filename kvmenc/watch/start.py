"""t = 0 of a window: the moment at which QEMU cleared the log that it had just started.

A log starts with every bit set (KVM_DIRTY_LOG_INITIALLY_SET); QEMU syncs it once and then clears it
(QEMU v7.2, migration/dirtyrate.c, calculate_dirtyrate_dirty_bitmap). So t = 0 lies between the last
look that saw all ones and the first that did not.

Where in between is seen afterwards. KVM_CLEAR_DIRTY_LOG holds KVM's lock for milliseconds, and a
look waits for it; a guest whose page faults need that lock waits too, and then t = 0 is its end.
The pages that are dirty again at the first look tell: at the guest's later pace they take so long.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvmenc.memory.slots import MemSlot
    from kvmenc.watch.peeks import Peek, Peeks

__all__ = ["Start", "find_start", "shows_rom_dirty"]

# A guest may write all pages of a slot smaller than this between two looks.
_TELLING_PAGES = 64
# No guest writes 16 MiB, page by page, each a fault, while a log is being cleared.
_BEYOND_GUESTS_PAGES = 4096
# QEMU clears the largest RAMBlock first and the small ones at once after it.
_SETTLE_S = 0.2
_PATIENCE_S = 30.0
_LEAST_ERROR_MS = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a window.

    Attributes:
        at_s: t = 0, by the clock of the looks.
        error_s: how far off it may be, either way.
        took_s: from the request to t = 0, at most: the log was started, synced and cleared, most of
            it under QEMU's big lock.
        first: the first look after it.
        clean: every bit was clear at t = 0; else those of ``first``, whose words are kept then,
            count as set before.
        dirty_pages: of the slots that tell, dirty again at the first look.
    """

    at_s: float
    error_s: float
    took_s: float
    first: Peek
    clean: bool = True
    dirty_pages: int = 0

    def refined(self, ms: float, pages: int) -> tuple[float, float]:
        """Where t = 0 was, seen from a later look: ms after ``at_s``, and how wrong that may be.

        Args:
            ms: of the later look, after ``at_s``.
            pages: dirty then.
        """
        error_ms = self.error_s * 1e3
        since_ms, grown = ms - error_ms, pages - self.dirty_pages
        if not self.clean or since_ms <= 0:
            return 0.0, error_ms
        if not grown:
            return (0.0, error_ms) if self.dirty_pages else (error_ms, error_ms)
        running_ms = min(2 * error_ms, self.dirty_pages * since_ms / grown)
        return error_ms - running_ms, min(error_ms, max(_LEAST_ERROR_MS, error_ms / 4))


def find_start(
    peeks: Peeks,
    slots: Sequence[MemSlot],
    check: Callable[[], object],
    clock: Callable[[], float] = time.monotonic,
) -> Start:
    """Look until the log has been cleared for the first time; QEMU is being asked to start it now.

    Args:
        peeks: looks at ``slots``.
        slots: the slots that will be logged.
        check: raises when QEMU refuses.
        clock: seconds, monotonic.

    Raises:
        HostError: the log does not start, or is never cleared.
    """
    asked_s = clock()
    telling = [slot for slot in slots if slot.npages >= _TELLING_PAGES or slot.readonly]
    certain = {slot for slot in telling if slot.npages >= _BEYOND_GUESTS_PAGES or slot.readonly}
    certain.add(max(slots, key=lambda slot: slot.npages))
    full, earliest_s, latest_s, dirty_pages = {*telling, *certain}, asked_s, asked_s, 0
    while clock() < asked_s + _PATIENCE_S:
        check()
        peek = peeks.take_some()
        still_full = {slot for slot in full if peek.all_dirty(slot)}
        if certain <= still_full:
            earliest_s = peek.before_s
        if len(still_full) < len(full):
            dirty_pages += sum(peek.dirty_pages(slot) for slot in certain & (full - still_full))
            full, latest_s = still_full, peek.after_s
        if not full or (not certain & full and peek.after_s > latest_s + _SETTLE_S):
            return _between(earliest_s, latest_s, asked_s, peek, dirty_pages)
    raise HostError(
        f"QEMU's dirty log was not cleared within {_PATIENCE_S:g} s of being started: is the host"
        " overloaded? Try again"
    )


def shows_rom_dirty(peek: Peek) -> bool:
    """Whether pages are dirty that no guest can write: then all bits were set at the log's start.

    KVM does that only under manual protect (Linux v6.12, virt/kvm/kvm_main.c,
    kvm_vm_ioctl_enable_cap_generic), and such bits are of no use to a migration, which sends every
    page once anyhow. So this look can harm nobody, whatever it shows.
    """
    return any(slot.readonly and peek.any_dirty(slot) for slot in peek.words)


def _between(
    earliest_s: float, latest_s: float, asked_s: float, first: Peek, dirty_pages: int
) -> Start:
    return Start(
        at_s=(earliest_s + latest_s) / 2,
        error_s=(latest_s - earliest_s) / 2,
        took_s=latest_s - asked_s,
        first=first,
        dirty_pages=dirty_pages,
    )
