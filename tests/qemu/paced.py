"""A guest that writes several streams of pages at a pace, in machine code.

Once in each period every stream writes its next batch of pages, one dword of each page. A period
is over when the PIT's channel 2 says so, which makes up for what was missed, up to 55 ms; or when
the guest has counted down, and then whatever slows the vCPU slows the writes::

            (the PIT's channel 2, down from 0)
            xor    %esi, %esi
            movl   $START, STATE_i                        ; of each stream
    period: (latch it, into %eax)
            mov    %esi, %ebx / sub %eax, %ebx / and $0xffff, %ebx
            cmp    $TICKS, %ebx / jb period
            sub    $TICKS, %esi
            mov    BURST, %eax / dec %eax / jnz in        ; these only if it writes in bursts
            mov    $ON_AND_OFF, %eax
    in:     mov    %eax, BURST / cmp $OFF, %eax / jbe period
    (of each stream:)
            mov    STATE_i, %edi / mov $BATCH, %ecx
    next:   mov    %ecx, (%edi)                           ; a sweep, in order or scattered
            add    $STEP, %edi / jc back
            cmp    $END, %edi / jb ok
    back:   sub    $SIZE, %edi
    ok:     loop   next
    next:   (xorshift32 of %edi)                          ; pages picked at random
            mov    %edi, %eax / mov $PAGES, %ebx / mul %ebx
            imul   $SPACING, %edx, %edx
            mov    %ecx, FIRST(%edx)
            loop   next
            mov    %edi, STATE_i
            jmp    period

Counting, whose pace is set once, by the PIT::

            mov    $LOOPS, %ecx / loop . / (latch it)
            neg    %ax / movzx %ax, %ecx                  ; ticks that the loops took
            mov    $LOOPS, %eax / mov $TICKS, %ebx / mul %ebx / div %ecx / mov %eax, %ebp
    period: mov    %ebp, %ecx / loop .
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tests.qemu.asm import Code
from tests.qemu.places import (
    PAGE,
    PIT_TICKS_PER_MS,
    REGION_GPA,
    STATE_GPA,
)

if TYPE_CHECKING:
    from tests.qemu.guest import Guest

_BURST_GPA = STATE_GPA + 0x800
#: Done before the PIT has come round, in 55 ms: they take 20 ms in a KVM that emulates code without
#: paging, as PVM's does, and 0.03 ms elsewhere.
_LOOPS = 40_000
_SEED = 2463534242


@dataclass(frozen=True, slots=True)
class Stream:
    """Pages that are written round and round.

    Attributes:
        pages: how many.
        batch: how many of them in each period; as many as ``pages``: a hot set.
        order: of addresses; or ``scatter``, each once but never soon by a neighbour; or at random,
            with some twice before others.
        first: the first of them, in pages from where the guest's filled memory begins.
        spacing: pages from one to its neighbour.
    """

    pages: int
    batch: int
    order: Literal["sweep", "scatter", "random"] = "scatter"
    first: int = 0
    spacing: int = 1

    @property
    def start_gpa(self) -> int:
        return REGION_GPA + self.first * PAGE

    @property
    def end_gpa(self) -> int:
        return self.start_gpa + self.pages * self.spacing * PAGE

    def put(self, code: Code, number: int) -> None:
        """The code of one batch."""
        state = STATE_GPA + 4 * number
        code.put("8b3d", state)
        code.put("b9", self.batch)
        code.label(f"next{number}")
        if self.order == "random":
            self._put_random(code)
        else:
            self._put_in_turn(code, number)
        code.jump("loop", f"next{number}")
        code.put("893d", state)

    def _put_random(self, code: Code) -> None:
        code.put("89f8 c1e00d 31c7 89f8 c1e811 31c7 89f8 c1e005 31c7 89f8 bb", self.pages)
        code.put("f7e3 69d2", self.spacing * PAGE)
        code.put("898a", self.start_gpa)

    def _put_in_turn(self, code: Code, number: int) -> None:
        code.put("890f 81c7", self._step_pages * self.spacing * PAGE)
        code.jump("jb", f"back{number}")
        code.put("81ff", self.end_gpa)
        code.jump("jb", f"ok{number}")
        code.label(f"back{number}")
        code.put("81ef", self.end_gpa - self.start_gpa)
        code.label(f"ok{number}")

    @property
    def _step_pages(self) -> int:
        """Scattered by the golden section, and coprime, so that each page has its turn."""
        if self.order == "sweep" or self.pages < 3:
            return 1
        places = range(round(self.pages * 0.618), self.pages)
        return next(n for n in places if math.gcd(n, self.pages) == 1)


@dataclass(frozen=True, slots=True)
class Paced:
    """Writes streams of pages at a pace.

    Attributes:
        streams: what is written in each period.
        period_ms: from one batch to the next; below 55.
        clock: the timer, which goes on while the vCPU does not; or the CPU itself.
        on_periods: with batches, in a burst; 0: always.
        off_periods: without any, after it.
    """

    streams: tuple[Stream, ...]
    period_ms: float
    clock: Literal["timer", "cpu"] = "timer"
    on_periods: int = 0
    off_periods: int = 0

    def code(self, _guest: Guest) -> bytes:
        code = Code()
        for number, stream in enumerate(self.streams):
            start = _SEED if stream.order == "random" else stream.start_gpa
            code.put("c705", STATE_GPA + 4 * number, start)
        code.put("c705", _BURST_GPA, self.on_periods + self.off_periods + 1)
        ticks = round(self.period_ms * PIT_TICKS_PER_MS)
        assert 0 < ticks < 0x10000
        if self.clock == "timer":
            _put_timer(code, ticks)
        else:
            _put_counting(code, ticks)
        if self.on_periods:
            self._put_bursts(code)
        for number, stream in enumerate(self.streams):
            stream.put(code, number)
        code.jump_far("period")
        return bytes(code)

    def _put_bursts(self, code: Code) -> None:
        code.put("a1", _BURST_GPA)
        code.put("48")
        code.jump("jnz", "in")
        code.put("b8", self.on_periods + self.off_periods)
        code.label("in")
        code.put("a3", _BURST_GPA)
        code.put("3d", self.off_periods)
        code.jump("jbe", "period")


def _put_timer(code: Code, ticks: int) -> None:
    """The PIT is polled: PVM's KVM emulates this guest, and cannot deliver it an interrupt."""
    code.port(0x43, 0xB0)
    code.port(0x42, 0, 0)
    code.put("31f6")
    code.label("period")
    code.put("b080 e643 e442 88c4 e442 86c4 89f3 29c3 81e3 ffff0000 81fb", ticks)
    code.jump("jb", "period")
    code.put("81ee", ticks)


def _put_counting(code: Code, ticks: int) -> None:
    code.port(0x43, 0xB0)
    code.port(0x42, 0, 0)
    code.put("b9", _LOOPS)
    code.put("e2fe")
    code.port(0x43, 0x80)
    code.put("e442 88c4 e442 86c4 66f7d8 0fb7c8 b8", _LOOPS)
    code.put("bb", ticks)
    code.put("f7e3 f7f1 89c5")
    code.label("period")
    code.put("89e9 e2fe")
