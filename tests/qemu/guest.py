"""A guest of our own for a real QEMU: a BIOS that fills pages, then writes some of them at a pace.

QEMU loads it as 64 KiB of ROM below 4 GiB, and nothing else runs: no SeaBIOS, no kernel::

    reset:  jmp    start
    start:  lgdtl  %cs:GDTR
            mov    %cr0, %eax / or $1, %al / mov %eax, %cr0
            ljmpl  $8, $flat
    flat:   mov    $16, %ax / mov %ax, %ds
            mov    $REGION, %edi / mov $FILLED, %ecx
    fill:   mov    %ecx, (%edi)          ; counts down to 1: no page stays zero
            add    $FILL_STEP, %edi
            loop   fill

The guest then halts, or goes on as a Writer, a Worker or a Stamper. A Writer's clock is the PIT's
channel 2, which counts down in wall time on any host, however slow the vCPU is::

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

import numpy as np

from kvmenc.capture import CurvePoint

PAGE = 4096
RAM_PAGES = 16384
REGION_GPA = 0x100000
REGION_PAGES = RAM_PAGES - REGION_GPA // PAGE
IMAGE_BYTES = 0x10000
#: Where a Worker counts its rounds (32 bits), and the rounds that went wrong.
PROGRESS_GPA, HARM_GPA = 0x1000, 0x1004
#: Where a Stamper looks for its next number.
MAILBOX_GPA = 0x2000

_PIT_TICKS_PER_MS = 1193.182
_GDTR, _GDT, _FLAT, _LIST, _RESET = 0x70, 0x80, 0x100, 0x200, 0xFFF0
_IMAGE_GPA = 2**32 - IMAGE_BYTES

_START = bytes.fromhex("2e660f01167000 0f20c0 0c01 0f22c0 66ea0001ffff0800")
_HALT = bytes.fromhex("f4 ebfd")


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
        ticks = round(self.period_ms * _PIT_TICKS_PER_MS)
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
                struct.pack("<BIBI", 0xBE, _IMAGE_GPA + _LIST, 0xB9, len(self.gfns)),
                bytes.fromhex("ad 8918 e2fb ebe4"),
            ]
        )

    @property
    def list(self) -> bytes:
        """For the BIOS, which holds some 16,000 at most."""
        addresses = struct.pack(f"<{len(self.gfns)}I", *(gfn * PAGE for gfn in self.gfns))
        assert len(addresses) <= _RESET - _LIST
        return addresses


@dataclass(frozen=True, slots=True)
class Guest:
    """What the guest does, and so what is known of its memory.

    Attributes:
        filled_pages: pages that hold something, from 1 MiB on.
        fill_step_pages: from one filled page to the next.
        writer: what goes on afterwards; None: nothing.
    """

    filled_pages: int
    fill_step_pages: int = 1
    writer: Writer | Worker | Stamper | None = None

    @property
    def last_filled_gpa(self) -> int:
        return REGION_GPA + (self.filled_pages - 1) * self.fill_step_pages * PAGE

    @property
    def curve(self) -> tuple[CurvePoint, ...]:
        """Of a guest that halts, or a Writer."""
        if self.writer is None:
            return (CurvePoint(1000, 0, 0),)
        assert isinstance(self.writer, Writer)
        return self.writer.curve

    @property
    def image(self) -> bytes:
        """The BIOS."""
        flat = bytes.fromhex("66b81000 8ed8 bf") + struct.pack("<I", REGION_GPA)
        flat += b"\xb9" + struct.pack("<I", self.filled_pages)
        flat += bytes.fromhex("890f 81c7") + struct.pack("<I", self.fill_step_pages * PAGE)
        flat += bytes.fromhex("e2f6") + (self.writer.code(self) if self.writer else _HALT)
        assert len(flat) <= _LIST - _FLAT
        parts = {
            0: _START,
            _GDTR: struct.pack("<HI", 3 * 8 - 1, _IMAGE_GPA + _GDT),
            _GDT: struct.pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF),
            _FLAT: flat,
            _LIST: self.writer.list if isinstance(self.writer, Stamper) else b"",
            _RESET: b"\xe9" + struct.pack("<H", IMAGE_BYTES - _RESET - 3),
        }
        image = bytearray(IMAGE_BYTES)
        for offset, part in parts.items():
            image[offset : offset + len(part)] = part
        return bytes(image)

    def zero_pages(self, block: str, npages: int) -> int:
        """How many pages of a RAMBlock of a guest without option ROMs hold only zeros.

        Of a guest that halts, or a Writer: the others use pages below 1 MiB, too.
        """
        pages = np.frombuffer(self.image, np.uint8).reshape(-1, PAGE)
        in_use = {"pc.ram": self.filled_pages, "pc.rom": 0, "pc.bios": int(pages.any(axis=1).sum())}
        return npages - in_use[block]
