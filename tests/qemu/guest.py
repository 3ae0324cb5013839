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

The guest then halts, or goes on as a Writer, a Worker, a Stamper or a Paced.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from kvmenc.capture import CurvePoint
from tests.qemu.paced import Paced, Stream
from tests.qemu.places import (
    FLAT,
    GDT,
    GDTR,
    HARM_GPA,
    IMAGE_BYTES,
    IMAGE_GPA,
    LIST,
    MAILBOX_GPA,
    PAGE,
    PROGRESS_GPA,
    RAM_PAGES,
    REGION_GPA,
    REGION_PAGES,
    RESET,
)
from tests.qemu.writers import Stamper, Worker, Writer

__all__ = [
    "HARM_GPA",
    "MAILBOX_GPA",
    "PAGE",
    "PROGRESS_GPA",
    "RAM_PAGES",
    "REGION_GPA",
    "REGION_PAGES",
    "Guest",
    "Paced",
    "Stamper",
    "Stream",
    "Worker",
    "Writer",
]

_START = bytes.fromhex("2e660f01167000 0f20c0 0c01 0f22c0 66ea0001ffff0800")
_HALT = bytes.fromhex("f4 ebfd")


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
    writer: Writer | Worker | Stamper | Paced | None = None

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
        listed = self.writer.list if isinstance(self.writer, Stamper) else b""
        assert len(flat) <= (LIST if listed else RESET) - FLAT
        parts = {
            0: _START,
            GDTR: struct.pack("<HI", 3 * 8 - 1, IMAGE_GPA + GDT),
            GDT: struct.pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF),
            LIST: listed,
            FLAT: flat,
            RESET: b"\xe9" + struct.pack("<H", IMAGE_BYTES - RESET - 3),
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
