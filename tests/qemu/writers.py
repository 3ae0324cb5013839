"""What a guest does once its memory is filled, in machine code.

A Writer's clock is the PIT's channel 2, which counts down in wall time on any host, however slow
the vCPU is::

            mov    $0xb0, %al / out %al, $0x43   ; channel 2, 16 bits, down from 0
            xor    %eax, %eax / out %al, $0x42 / out %al, $0x42
            xor    %esi, %esi / mov $1, %edx
            mov    $REGION, %edi
    write:  dec    %edx
            jnz    go
    wait:   mov    $0x80, %al / out %al, $0x43   ; latch the count
            in     $0x42, %al / mov %al, %ah / in $0x42, %al / xchg %al, %ah
            mov    %esi, %ebx / sub %eax, %ebx
            cmp    $TICKS, %bx
            jb     wait
            sub    $TICKS, %si                   ; not "now": what was missed is made up for
            mov    $BATCH, %edx
            mov    $HOT, %ebx / mov $HOT_PAGES, %ecx   ; these four only if there are hot pages
    hot:    mov    %ecx, (%ebx)
            add    $SPACING, %ebx
            loop   hot
    go:     mov    %edx, (%edi)
            add    $STEP, %edi
            cmp    $REGION_END, %edi
            jb     write
            sub    $REGION_SIZE, %edi
            jmp    write

A Worker adds up what was filled in, together with its other registers, and counts what it did::

            mov    $EBX, %ebx / mov $EDX, %edx / mov $EBP, %ebp / mov $ESP, %esp
    round:  mov    $REGION, %edi / mov $FILLED, %ecx / xor %eax, %eax
    sum:    mov    (%edi), %esi / add %esi, %eax / mov %esi, (%edi)
            add    $FILL_STEP, %edi
            loop   sum
            xor    %ebx, %eax / xor %edx, %eax / xor %ebp, %eax / xor %esp, %eax
            cmp    $EXPECTED, %eax
            jne    harm
            incl   PROGRESS
            jmp    round
    harm:   incl   HARM
            jmp    round

A Stamper waits for a number to be put into its mailbox, and writes that to each page of a list::

            xor    %ebx, %ebx
    wait:   mov    MAILBOX, %eax / cmp %ebx, %eax / je wait
            mov    %eax, %ebx
            mov    $LIST, %esi / mov $LENGTH, %ecx
    next:   lodsl / mov %ebx, (%eax)
            loop   next
            jmp    wait
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.capture import CurvePoint
from tests.qemu.places import (
    HARM_GPA,
    IMAGE_GPA,
    LIST,
    MAILBOX_GPA,
    PAGE,
    PIT_TICKS_PER_MS,
    PROGRESS_GPA,
    RAM_PAGES,
    REGION_GPA,
    REGION_PAGES,
    RESET,
)

if TYPE_CHECKING:
    from tests.qemu.guest import Guest


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes pages that lie evenly over the filled region, round and round, in scattered order.

    Attributes:
        pages: how many; a divisor of ``REGION_PAGES``.
        batch: how many at once; all of them make a hot set that is always dirty.
        period_ms: from one batch to the next; below 55.
        hot_pages: as many others, each written before every batch; not more than ``pages``, which
            then are at most half of ``REGION_PAGES``.
    """

    pages: int
    batch: int
    period_ms: float
    hot_pages: int = 0

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Distinct pages written within 1, 2, 3... periods, until nothing is added any more."""
        counts = range(1, math.ceil(self.pages / self.batch) + 2)
        return tuple(
            CurvePoint(n * self.period_ms, 0, self.hot_pages + min(self.pages, n * self.batch))
            for n in counts
        )

    def code(self, _guest: Guest) -> bytes:
        ticks = round(self.period_ms * PIT_TICKS_PER_MS)
        hot = self._hot_code
        return b"".join(
            [
                bytes.fromhex("b0b0 e643 31c0 e642 e642 31f6 ba01000000 bf"),
                struct.pack("<I", REGION_GPA),
                b"\x4a\x75" + struct.pack("b", 33 + len(hot)),
                bytes.fromhex("b080 e643 e442 88c4 e442 86c4 89f3 29c3 6681fb"),
                struct.pack("<H", ticks),
                bytes.fromhex("72e9 6681ee"),
                struct.pack("<H", ticks),
                b"\xba" + struct.pack("<I", self.batch) + hot,
                bytes.fromhex("8917 81c7") + struct.pack("<I", self._step_pages * PAGE),
                bytes.fromhex("81ff") + struct.pack("<I", RAM_PAGES * PAGE),
                b"\x72" + struct.pack("b", -52 - len(hot)),
                bytes.fromhex("81ef") + struct.pack("<I", REGION_PAGES * PAGE),
                b"\xeb" + struct.pack("b", -60 - len(hot)),
            ]
        )

    @property
    def _hot_code(self) -> bytes:
        if not self.hot_pages:
            return b""
        spacing = REGION_PAGES // self.pages
        assert spacing > 1
        assert self.hot_pages <= self.pages
        return b"".join(
            [
                b"\xbb" + struct.pack("<I", REGION_GPA + PAGE),
                b"\xb9" + struct.pack("<I", self.hot_pages),
                bytes.fromhex("890b 81c3") + struct.pack("<I", spacing * PAGE),
                bytes.fromhex("e2f6"),
            ]
        )

    @property
    def _step_pages(self) -> int:
        """Comes by every page once, and never soon by a neighbour: golden section, coprime."""
        spacing, rest = divmod(REGION_PAGES, self.pages)
        assert not rest
        places = range(round(self.pages * 0.618), self.pages)
        return spacing * next(n for n in places if math.gcd(n, self.pages) == 1)


@dataclass(frozen=True, slots=True)
class Worker:
    """Reads, checks and writes back every filled page as fast as it can, and checks its registers.

    It counts its rounds at ``PROGRESS_GPA``, and at ``HARM_GPA`` those in which a register or a
    page did not hold what it must.
    """

    def code(self, guest: Guest) -> bytes:
        ebx, edx, ebp, esp = registers = (0x1234ABCD, 0x5A5AA5A5, 0x0F1E2D3C, 0x7EDCBA98)
        filled = guest.filled_pages
        expected = filled * (filled + 1) // 2 & 0xFFFFFFFF
        for register in registers:
            expected ^= register
        return b"".join(
            [
                struct.pack("<BIBIBIBI", 0xBB, ebx, 0xBA, edx, 0xBD, ebp, 0xBC, esp),
                struct.pack("<BIBI", 0xBF, REGION_GPA, 0xB9, filled),
                bytes.fromhex("31c0 8b37 01f0 8937 81c7"),
                struct.pack("<I", guest.fill_step_pages * PAGE),
                bytes.fromhex("e2f2 31d8 31d0 31e8 31e0 3d") + struct.pack("<I", expected),
                bytes.fromhex("7508 ff05") + struct.pack("<I", PROGRESS_GPA),
                bytes.fromhex("ebcf ff05") + struct.pack("<I", HARM_GPA),
                bytes.fromhex("ebc7"),
            ]
        )


@dataclass(frozen=True, slots=True)
class Stamper:
    """Writes a list of pages, and nothing else, whenever it is told to; meanwhile it only reads.

    Attributes:
        gfns: the pages.
    """

    gfns: tuple[int, ...]

    def code(self, _guest: Guest) -> bytes:
        return b"".join(
            [
                bytes.fromhex("31db a1") + struct.pack("<I", MAILBOX_GPA),
                bytes.fromhex("39d8 74f7 89c3"),
                struct.pack("<BIBI", 0xBE, IMAGE_GPA + LIST, 0xB9, len(self.gfns)),
                bytes.fromhex("ad 8918 e2fb ebe4"),
            ]
        )

    @property
    def list(self) -> bytes:
        """For the BIOS, which holds some 16,000 at most."""
        addresses = struct.pack(f"<{len(self.gfns)}I", *(gfn * PAGE for gfn in self.gfns))
        assert len(addresses) <= RESET - LIST
        return addresses
