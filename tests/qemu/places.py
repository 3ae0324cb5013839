"""Where things lie in the guest of the tests and in its BIOS."""

from __future__ import annotations

PAGE = 4096
RAM_PAGES = 16384
REGION_GPA = 0x100000
REGION_PAGES = RAM_PAGES - REGION_GPA // PAGE
IMAGE_BYTES = 0x10000
#: The BIOS ends where the 32-bit addresses do.
IMAGE_GPA = 2**32 - IMAGE_BYTES
#: Where a Worker counts its rounds (32 bits), and the rounds that went wrong.
PROGRESS_GPA, HARM_GPA = 0x1000, 0x1004
#: Where a Stamper looks for its next number.
MAILBOX_GPA = 0x2000
#: Where a Paced keeps what it must remember.
STATE_GPA = 0x3000

#: Places in the BIOS: descriptors, the 32-bit code, a Stamper's list, the first instruction.
GDTR, GDT, FLAT, LIST, RESET = 0x70, 0x80, 0x100, 0x200, 0xFFF0

PIT_TICKS_PER_MS = 1193.182
