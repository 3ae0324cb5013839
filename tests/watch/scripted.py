"""A dirty log that is a script: what each look finds, on a clock of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from kvmenc.errors import SlotNotLogged
from kvmenc.memory.layout import Layout
from kvmenc.memory.slots import MemSlot, RamBlock
from kvmenc.memory.words import ones, zeros
from kvmenc.watch.peeks import Peeks

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.dirtysource import PeekSource
    from kvmenc.memory.words import Words

RAM = MemSlot(slot_id=3, base_gfn=0x100, npages=5000, userspace_addr=0x7000_0000_0000)
ROM = MemSlot(
    slot_id=4, base_gfn=0xFFFF0, npages=70, userspace_addr=0x7001_0000_0000, readonly=True
)
TINY = MemSlot(slot_id=5, base_gfn=0xC0, npages=8, userspace_addr=0x7002_0000_0000)
SLOTS = (RAM, ROM, TINY)
LAYOUT = Layout(
    SLOTS,
    [
        RamBlock("ram", 5000, 0x7000_0000_0000),
        RamBlock("bios", 70, 0x7001_0000_0000),
        RamBlock("vga", 8, 0x7002_0000_0000),
    ],
)

FULL, CLEAR = "full", "clear"
LOOK_S = 0.001

State = str | set[int]


class Clock:
    """Stands still but for what is added to it."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class ScriptedLog:
    """Like a ``PeekSource``: each look takes a millisecond and finds the next line of a script.

    Args:
        clock: moved on by each look.
        script: for each look what every slot holds (``full``, ``clear``, or dirty pages), or None
            while the log is off; a slot that is left out has none. The last line is found again and
            again.
    """

    name = "a script"

    def __init__(self, clock: Clock, script: Sequence[dict[MemSlot, State] | None]) -> None:
        self._clock = clock
        self._script = list(script)

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        found = self.look(slots)
        for slot in slots:
            if slot not in found:
                raise SlotNotLogged("KVM_GET_DIRTY_LOG", 2, str(slot))
            yield slot, found[slot]

    def look(self, slots: Sequence[MemSlot]) -> dict[MemSlot, Words]:
        self._clock.now_s += LOOK_S
        line = self._script.pop(0) if len(self._script) > 1 else self._script[0]
        states = line or {}
        return {slot: _words(states[slot], slot.npages) for slot in slots if slot in states}


def _words(state: State, npages: int) -> Words:
    if state == FULL:
        return ones(npages)
    words = zeros(npages)
    for page in state if isinstance(state, set) else ():
        words[page // 64] |= words.dtype.type(1 << page % 64)
    return words


def look(ram: State, rom: State = CLEAR, tiny: State = CLEAR) -> dict[MemSlot, State]:
    return {RAM: ram, ROM: rom, TINY: tiny}


ALL = look(FULL, FULL, FULL)


def peeks_of(script: Sequence[dict[MemSlot, State] | None]) -> tuple[Peeks, Clock]:
    clock = Clock()
    return Peeks(cast("PeekSource", ScriptedLog(clock, script)), SLOTS, clock), clock
