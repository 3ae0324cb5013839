"""QEMU's log of the trace event ``kvm_set_user_memory``: the memslots, with KVM's own numbers.

Format: QEMU accel/kvm/trace-events. In v7.2 the number's upper half is the address space; in v10.0
the two are apart, and the guest_memfd is told::

    kvm_set_user_memory Slot#0 flags=0x0 gpa=0x0 size=0xa0000 ua=0x7f4843e00000 ret=0
    kvm_set_user_memory AS#0 Slot#0 flags=0x4 gpa=0x0 size=0xa0000 ua=0x7f4843e00000
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
    from kvmenc.qemu.text import QemuText

__all__ = ["TracedSlot", "parse_trace"]

# A u16 each.
ID_LIMIT = 1 << 16

_EVENT = "kvm_set_user_memory "
_HEX = r"0x([0-9a-f]{1,16})"
_SLOT = re.compile(
    rf"(?:AS#(\d{{1,5}}) )?Slot#(\d{{1,10}}) flags={_HEX} gpa={_HEX} size={_HEX} ua={_HEX}"
    r"(?: guest_memfd=-?\d+ guest_memfd_offset=0x[0-9a-f]+)? ret=(-?\d+)"
)


@dataclass(frozen=True, slots=True)
class TracedSlot:
    """A memslot, and what KVM was told of it that a MemSlot does not hold.

    Attributes:
        slot: the memslot.
        guest_memfd: its private pages lie in a guest_memfd; KVM refuses it a dirty log.
    """

    slot: MemSlot
    guest_memfd: bool


def parse_trace(text: QemuText) -> list[TracedSlot]:
    """The slots that are there at the end of the log, each in its last state.

    Lines of other events are passed over, and so are calls that KVM refused.

    Raises:
        InputError: an event is not of this format, or there is none; names the file and line.
    """
    slots: dict[int, TracedSlot] = {}
    seen = False
    for number, line in text.lines():
        _, event, rest = line.partition(_EVENT)
        if not event:
            continue
        match = _SLOT.fullmatch(rest)
        if not match:
            raise text.error(number, "no kvm_set_user_memory that is known; cut off?", line)
        seen = True
        if int(match[7]) == 0:
            _apply(slots, match, text, number)
    if not seen:
        raise InputError(
            f"{text.source}: no kvm_set_user_memory in it; start QEMU with "
            "-trace enable=kvm_set_user_memory -D FILE"
        )
    return list(slots.values())


def _apply(slots: dict[int, TracedSlot], match: re.Match[str], text: QemuText, number: int) -> None:
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
    slots.pop(slot.key, None)
    if slot.npages:
        slots[slot.key] = TracedSlot(slot, bool(flags & uapi.KVM_MEM_GUEST_MEMFD))
