"""What /dev/kvm and /dev/sev look like: programs often look before they open.

Source: Linux v6.12, arch/x86/include/uapi/asm/stat.h; include/uapi/linux/stat.h.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from pathlib import Path

from fakekvm.machine import KVM_PATH, SEV_PATH

__all__ = ["stat_of", "statx_of"]

_MAJOR = 10  # misc
_MINORS = {KVM_PATH: 232, SEV_PATH: 124}
_MODE = stat.S_IFCHR | 0o660
_BLOCK_BYTES = 4096

_STAT = struct.Struct("<3QIII4xQqqqQQQQQQ24x")
_STATX = struct.Struct("<IIQIIIHxxQQQQ16s16s16s16sIIII112x")
_BASIC_STATS = 0x7FF


def stat_of(device: str) -> bytes:
    """A struct stat."""
    folder = Path("/dev").stat()
    rdev = os.makedev(_MAJOR, _MINORS[device])
    head = (folder.st_dev, _inode(device), 1, _MODE, 0, 0, rdev, 0, _BLOCK_BYTES, 0)
    return _STAT.pack(*head, *(int(time.time()), 0) * 3)


def statx_of(device: str) -> bytes:
    """A struct statx."""
    folder = Path("/dev").stat()
    now = struct.pack("<qI4x", int(time.time()), 0)
    numbers = (_MAJOR, _MINORS[device], os.major(folder.st_dev), os.minor(folder.st_dev))
    head = (_BASIC_STATS, _BLOCK_BYTES, 0, 1, 0, 0, _MODE, _inode(device), 0, 0, 0)
    return _STATX.pack(*head, now, bytes(16), now, now, *numbers)


def _inode(device: str) -> int:
    """Theirs cannot be known; /dev's own small numbers are likely to be another file's."""
    return 1 << 31 | _MINORS[device]
