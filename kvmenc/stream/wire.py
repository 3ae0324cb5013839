"""The numbers of a migration stream: sections, RAM records, encrypted records. All are big-endian.

QEMU 7.2 and 10.2, migration/savevm.h (sections) and migration/ram.c, migration/ram.h (records).
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

__all__ = [
    "FILE_MAGIC",
    "FILE_VERSION",
    "RAM_SECTION",
    "RAM_VERSION",
    "BitmapStatus",
    "Encrypted",
    "Ram",
    "Section",
]

FILE_MAGIC = 0x5145564D
FILE_VERSION = 3

#: What the section that holds RAM is called, and its version (migration/ram.c, ``ram_mig_init``).
RAM_SECTION = "ram"
RAM_VERSION = 4


class Section(IntEnum):
    """The byte that each part of a stream begins with: QEMU_VM_*."""

    EOF = 0x00
    START = 0x01
    PART = 0x02
    END = 0x03
    FULL = 0x04
    SUBSECTION = 0x05
    VMDESCRIPTION = 0x06
    CONFIGURATION = 0x07
    COMMAND = 0x08
    FOOTER = 0x7E


class Ram(IntFlag):
    """What the low bits of a record's header say, RAM_SAVE_FLAG_*; above them is the offset.

    The bits 0x200 and 0x400 have no name here: what they mean depends on the dialect.
    """

    ZERO = 0x002
    MEM_SIZE = 0x004
    PAGE = 0x008
    EOS = 0x010
    CONTINUE = 0x020
    XBZRLE = 0x040
    HOOK = 0x080
    COMPRESS_PAGE = 0x100


class Encrypted(IntEnum):
    """What an encrypted record is, where the dialect says so in a be32 after its header.

    1 and 2: codomania/qemu sev-migration-v3, include/sysemu/sev.h, RAM_SAVE_ENCRYPTED_*; in later
    dialects 2 is a list of shared ranges. 4 to 6: openEuler qemu-8.2.0, target/i386/sev.h.
    """

    PAGE = 1
    PRIVATE_STATE = 2
    PAGE_BATCH = 4
    PAGE_BATCH_END = 5
    CPU_STATE = 6


class BitmapStatus(IntEnum):
    """Before each item of the private state: sev-migration-v3, target/i386/sev.c."""

    CONTINUE = 1
    END = 2
