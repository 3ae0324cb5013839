"""KVM's numbers of a running QEMU's slots, as QEMU traces them when the dirty log is started.

QEMU tells KVM of every slot anew then, and traces that as ``kvm_set_user_memory``. A slot that was
logged already, a display's memory, is left out; but QEMU clears every slot's log right after, and
traces that as ``kvm_clear_dirty_log``, with the number and the size (QEMU v7.2 and v10.0,
accel/kvm/kvm-all.c, kvm_slot_update_flags, kvm_log_clear_one_slot; migration/dirtyrate.c).
"""

from __future__ import annotations

import re
import time
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Self

from kvmenc.errors import HostError, InputError
from kvmenc.memory.layout import Layout
from kvmenc.qemu.borrowed import BorrowedLog
from kvmenc.qemu.text import MAX_LINE, QemuText
from kvmenc.qemu.trace import SLOT_EVENT, TracedSlot, apply_event, read_events

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from kvmenc.memory.slots import MemSlot
    from kvmenc.qemu.facts import Facts
    from kvmenc.qemu.monitor import Monitor

    Place = tuple[int, int, int]

__all__ = ["SlotTrace", "with_numbers"]

_CLEAR_EVENT = "kvm_clear_dirty_log"
_CLEAR = re.compile(rf"{_CLEAR_EVENT} slot#(\d{{1,10}}) start 0x0 size 0x([0-9a-f]{{1,8}})$")

# The first sync of a large guest comes before the log is cleared.
_PATIENCE_S = 30.0
_POLL_S = 0.005


class SlotTrace:
    """Has QEMU trace its slots; a context manager that leaves its events and log as they were.

    Where the log goes to a file, the traced lines (one or two for each slot) stay in it; else they
    go to a file of ours that is removed. What a killed one left behind is put right first.

    Args:
        monitor: of the QEMU.
        facts: of it.
    """

    def __init__(self, monitor: Monitor, facts: Facts) -> None:
        self._log = BorrowedLog(monitor, facts.pid, (SLOT_EVENT, _CLEAR_EVENT))
        self._name = monitor.name

    def __enter__(self) -> Self:
        self._log.__enter__()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._log.__exit__()

    def slots(self, expected: Layout) -> list[TracedSlot]:
        """KVM's slots, once the caller has had the dirty log started; waits for all of them.

        Args:
            expected: as QEMU's monitor tells it, whose slot ids mean nothing.

        Raises:
            HostError: QEMU does not trace all of them in time.
            InputError: what it traces is not known.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            found = traced_slots(self._name, self._log.lines(), expected.slots)
            missing = [slot for slot in expected.slots if _place(slot) not in found]
            if not missing:
                return [found[_place(slot)] for slot in expected.slots]
            if time.monotonic() > deadline:
                raise HostError(
                    f"{self._name}: QEMU did not tell the numbers of {len(missing)} of "
                    f"{len(expected.slots)} slots within {_PATIENCE_S:g} s, the first at gfn "
                    f"{missing[0].base_gfn:#x}: is the dirty log on?"
                )
            time.sleep(_POLL_S)

    def shows_manual_protect(self, patience_s: float = _PATIENCE_S) -> bool:
        """Whether QEMU clears the log in calls of its own, as it does under manual protect only.

        So looking at the log takes nothing. Waits for QEMU to clear anything, which it does soon
        after the log's start, and all the time in a migration (QEMU v7.2 and v10.0,
        accel/kvm/kvm-all.c, kvm_physical_log_clear).

        Raises:
            HostError: its log cannot be read any more.
        """
        deadline = time.monotonic() + patience_s
        while not any(_CLEAR_EVENT in line for line in self._log.lines()):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def numbered(self, expected: Layout) -> Layout:
        """The same layout with KVM's own slots; waits as ``slots`` does, and raises likewise.

        A slot whose log a display reads counts as one without: bits vanish whenever it draws.
        """
        traced = [
            replace(it, slot=replace(it.slot, log_dirty=not it.shares_log))
            for it in self.slots(expected)
        ]
        return with_numbers(expected, traced)


def with_numbers(layout: Layout, traced: Iterable[TracedSlot]) -> Layout:
    """A layout with KVM's own slot ids and dirty logs.

    Args:
        layout: of a running QEMU, as its monitor tells it.
        traced: its slots, from its trace.

    Raises:
        InputError: the trace has another slot, or none, at the place of one: it is not of the
            same QEMU, or not up to date.
    """
    known = {_place(it.slot): it.slot for it in traced}
    for slot in layout.slots:
        told = known.get(_place(slot))
        if told is None or told.userspace_addr != slot.userspace_addr:
            raise InputError(
                f"gfn {slot.base_gfn:#x}: the trace does not tell of this slot: it is of another "
                "QEMU, or not up to date"
            )
    slots = [known[_place(slot)] for slot in layout.slots]
    return Layout(slots, layout.blocks, layout.page_size)


def traced_slots(
    source: str, lines: Sequence[str], expected: Sequence[MemSlot]
) -> dict[Place, TracedSlot]:
    """The slots whose log was started, by their place, as far as the lines tell them."""
    logged = _logged(source, lines)
    found = {_place(it.slot): it for it in logged.values()}
    missing = defaultdict(list)
    for slot in expected:
        if _place(slot) not in found:
            missing[slot.as_id, slot.npages].append(slot)
    cleared = _cleared(lines, logged)
    for size, slots in missing.items():
        # Two slots of one size can be told apart by nothing.
        if len(slots) == len(cleared[size]) == 1:
            [slot_id] = cleared[size]
            slot = replace(slots[0], slot_id=slot_id, log_dirty=True)
            found[_place(slot)] = TracedSlot(slot, guest_memfd=False, shares_log=True)
    return found


def _logged(source: str, lines: Sequence[str]) -> dict[int, TracedSlot]:
    """By key, as they were when they were last logged: the log may be off again by now."""
    told = "".join(f"{line}\n" for line in lines if SLOT_EVENT in line and len(line) <= MAX_LINE)
    slots: dict[int, TracedSlot] = {}
    for traced in read_events(QemuText(f"{source}: log", told)):
        if traced and (traced.slot.log_dirty or not traced.slot.npages):
            apply_event(slots, traced)
    return slots


def _cleared(
    lines: Sequence[str], logged: dict[int, TracedSlot]
) -> defaultdict[tuple[int, int], set[int]]:
    """Slot ids of which nothing but a clearing of the whole is known, by address space and size."""
    known = {(it.slot.as_id, it.slot.slot_id) for it in logged.values()}
    ids = defaultdict(set)
    for match in filter(None, map(_CLEAR.search, lines)):
        as_id, slot_id = divmod(int(match[1]), 1 << 16)
        if (as_id, slot_id) not in known:
            ids[as_id, int(match[2], 16)].add(slot_id)
    return ids


def _place(slot: MemSlot) -> Place:
    """What a slot is, whatever its number."""
    return slot.as_id, slot.base_gfn, slot.npages
