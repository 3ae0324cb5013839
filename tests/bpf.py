"""A second reading of classic BPF, for the tests of filters."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW = 0x7FFF0000


def outcome(lines: Sequence[tuple[int, ...]], nr: int, *args: int, arch: int = X86_64) -> int:
    """What a filter, as (code, jt, jf, k), returns for a system call."""
    data = struct.pack("<iIQ6Q", nr, arch, 0, *args, *[0] * (6 - len(args)))
    accumulator = at = 0
    while True:
        code, true, false, k = lines[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x15:
            at += true if accumulator == k else false
        elif code == 0x45:
            at += true if accumulator & k else false
        else:
            assert code == 0x06
            return int(k)
