"""A program tells whoever records it from outside what it saw, and decided by.

It does so by an ioctl on no descriptor, which the kernel refuses with EBADF before it looks at
anything else, recorded or not. KVM has no ioctl of this number (Linux v6.12, include/uapi/linux/
kvm.h), and never sees it.
"""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import msgspec

from kvmenc import uapi
from kvmenc.backend.recordmodel import Seen

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TELL_FD", "TELL_REQUEST", "tell", "told"]

TELL_FD, TELL_REQUEST = -1, uapi.KVMIO << 8 | 0xFF
_HEAD_BYTES, _MOST_BYTES = 8, 2**20

_ioctl = ctypes.PyDLL(None).ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


def tell(what: str, value: float | bytes) -> None:
    """Tell of a value; nobody has to listen."""
    text = msgspec.json.encode(Seen(what=what, value=value))
    _ioctl(TELL_FD, TELL_REQUEST, len(text).to_bytes(_HEAD_BYTES, "little") + text)


def told(address: int, read: Callable[[int, int], bytes | None]) -> Seen | None:
    """What a program tells of; None: that was something else.

    Args:
        address: the ioctl's argument.
        read: the program's memory, by address and number of bytes.
    """
    head = read(address, _HEAD_BYTES)
    nbytes = int.from_bytes(head, "little") if head else 0
    text = read(address + _HEAD_BYTES, nbytes) if 0 < nbytes <= _MOST_BYTES else None
    try:
        seen = msgspec.json.decode(text or b"", type=Seen)
    except ValueError:
        return None
    return seen if seen.what.isprintable() else None
