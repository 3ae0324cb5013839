"""QEMU's log of the trace event ``kvm_set_user_memory``: the memslots, with KVM's own numbers.

Format: QEMU accel/kvm/trace-events. In v7.2 the number's upper half is the address space; in v10.0
the two are apart, and the guest_memfd is told::

    kvm_set_user_memory Slot#0 flags=0x0 gpa=0x0 size=0xa0000 ua=0x7f4843e00000 ret=0
    kvm_set_user_memory AddrSpace#0 Slot#0 flags=0x4 gpa=0x0 size=0xa0000 ua=0x7f4843e00000
        guest_memfd=12 guest_memfd_offset=0x0 ret=0          (one line)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.errors import InputError
from kvmenc.memory.slots import MemSlot
from kvmenc.qemu.text import HOST_ADDR_LIMIT, PAGE_SIZE, RAM_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.qemu.text import QemuText

__all__ = ["SLOT_EVENT", "TracedSlot", "apply_event", "parse_trace", "read_events"]

# A u16 each.
ID_LIMIT = 1 << 16

SLOT_EVENT = "kvm_set_user_memory"
_HEX = r"0x([0-9a-f]{1,16})"
_SLOT = re.compile(
    rf"(?:AddrSpace#(\d{{1,5}}) )?Slot#(\d{{1,10}}) flags={_HEX} gpa={_HEX} size={_HEX} ua={_HEX}"
    r"(?: guest_memfd=-?\d+ guest_memfd_offset=0x[0-9a-f]+)? ret=(-?\d+)"
)


@dataclass(frozen=True, slots=True)
class TracedSlot:
    """A memslot, and what KVM was told of it that a MemSlot does not hold.

    Attributes:
        slot: the memslot.
        guest_memfd: its private pages lie in a guest_memfd; KVM refuses it a dirty log.
        shares_log: it was logged before anybody asked: a display reads its log, and clears it.
    """

    slot: MemSlot
    guest_memfd: bool
    shares_log: bool = False


def parse_trace(text: QemuText) -> list[TracedSlot]:
    """The slots that are there at the end of the log, each in its last state.

    Lines of other events are passed over, and so are calls that KVM refused.

    Raises:
        InputError: an event is not of this format, or there is none; names the file and line.
    """
    slots: dict[int, TracedSlot] = {}
    seen = False
    for traced in read_events(text):
        seen = True
        if traced:
            apply_event(slots, traced)
    if not seen:
        raise InputError(
            f"{text.source}: no kvm_set_user_memory in it; start QEMU with "
            "-trace enable=kvm_set_user_memory -D FILE"
        )
    return list(slots.values())


def read_events(text: QemuText) -> Iterator[TracedSlot | None]:
    """Each kvm_set_user_memory: what KVM took, None for a call that it refused.

    Raises:
        InputError: an event is not of this format; names the file and line.
    """
    for number, line in text.lines():
        _, event, rest = line.partition(f"{SLOT_EVENT} ")
        if not event:
            continue
        match = _SLOT.fullmatch(rest)
        if not match:
            raise text.error(number, "no kvm_set_user_memory that is known; cut off?", line)
        yield _traced(match, text, number) if int(match[7]) == 0 else None


def apply_event(slots: dict[int, TracedSlot], traced: TracedSlot) -> None:
    """Bring slots, by their keys, up to date; one of no pages is gone."""
    slots.pop(traced.slot.key, None)
    if traced.slot.npages:
        slots[traced.slot.key] = traced


def _traced(match: re.Match[str], text: QemuText, number: int) -> TracedSlot:
    flags, gpa, size, addr = (int(match[i], 16) for i in (3, 4, 5, 6))
    as_id, slot_id = (int(match[1]), int(match[2])) if match[1] else divmod(int(match[2]), 1 << 16)
    if gpa % PAGE_SIZE or size % PAGE_SIZE or addr % PAGE_SIZE:
        raise text.error(number, "a slot is whole pages", match[0])
    if max(as_id, slot_id) >= ID_LIMIT or gpa + size > RAM_LIMIT or addr + size > HOST_ADDR_LIMIT:
        raise text.error(number, "no slot that KVM would take", match[0])
    slot = MemSlot(
        slot_id=slot_id,
        base_gfn=gpa // PAGE_SIZE,
        npages=size // PAGE_SIZE,
        userspace_addr=addr,
        as_id=as_id,
        readonly=bool(flags & uapi.KVM_MEM_READONLY),
        log_dirty=bool(flags & uapi.KVM_MEM_LOG_DIRTY_PAGES),
    )
    return TracedSlot(slot, bool(flags & uapi.KVM_MEM_GUEST_MEMFD))
