"""Which system calls of a program are asked about: a filter in the kernel's classic BPF.

All others run as they always do, and cost next to nothing: the kernel remembers calls that a filter
lets pass whatever their arguments are. Programs of other architectures than x86-64 are let alone.

Source: Linux v6.12, kernel/seccomp.c, seccomp_cache_prepare; include/uapi/linux/seccomp.h, struct
seccomp_data; include/uapi/linux/filter.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Nr", "program"]


class Nr:
    """Numbers of x86-64's system calls. Source: Linux v6.12, syscall_64.tbl."""

    OPEN = 2
    STAT = 4
    LSTAT = 6
    IOCTL = 16
    ACCESS = 21
    EXECVE = 59
    CREAT = 85
    READLINK = 89
    OPENAT = 257
    NEWFSTATAT = 262
    READLINKAT = 267
    FACCESSAT = 269
    EXECVEAT = 322
    STATX = 332
    OPENAT2 = 437
    FACCESSAT2 = 439


_AUDIT_ARCH_X86_64 = 0xC000003E
_AT_EMPTY_PATH = 0x1000
_KVM_TYPE, _SEV_TYPE = 0xAE, ord("S")  # of ioctl numbers: their second byte

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_ANY_BIT = 0x15, 0x45
_ALLOW, _NOTIFY = 0x7FFF0000, 0x7FC00000  # SECCOMP_RET_ALLOW, SECCOMP_RET_USER_NOTIF
_NR_OFFSET, _ARCH_OFFSET = 0, 4
_INSTRUCTION = struct.Struct("<HBBI")  # struct sock_filter: code, jt, jf, k

_NOTIFIED = (
    Nr.OPEN,
    Nr.STAT,
    Nr.LSTAT,
    Nr.ACCESS,
    Nr.CREAT,
    Nr.READLINK,
    Nr.OPENAT,
    Nr.READLINKAT,
    Nr.FACCESSAT,
    Nr.OPENAT2,
    Nr.FACCESSAT2,
    Nr.EXECVE,
    Nr.EXECVEAT,
)


class _Line(NamedTuple):
    """An instruction; jumps go to labels, or to the next line where that is empty."""

    code: int
    k: int
    true: str = ""
    false: str = ""
    label: str = ""


def _argument_offset(index: int) -> int:
    """Of an argument's lower half: what the kernel looks at in flags and ioctl numbers."""
    return 16 + 8 * index


_LOAD_REQUEST = _Line(_LOAD, _argument_offset(1), label="ioctl")
_ANY_OF_KVM = (_LOAD_REQUEST, _Line(_AND, 0xFF00), _Line(_IF_EQUAL, _KVM_TYPE << 8, true="notify"))


def _only(requests: Collection[int]) -> tuple[_Line, ...]:
    exact = (_Line(_IF_EQUAL, request, true="notify") for request in requests)
    return (_LOAD_REQUEST, *exact, _Line(_AND, 0xFF00))


_HEAD = (
    _Line(_LOAD, _ARCH_OFFSET),
    _Line(_IF_EQUAL, _AUDIT_ARCH_X86_64, false="allow"),
    _Line(_LOAD, _NR_OFFSET),
    *(_Line(_IF_EQUAL, nr, true="notify") for nr in _NOTIFIED),
    _Line(_IF_EQUAL, Nr.IOCTL, true="ioctl"),
    _Line(_IF_EQUAL, Nr.NEWFSTATAT, true="newfstatat"),
    _Line(_IF_EQUAL, Nr.STATX, true="statx", false="allow"),
)
_TAIL = (
    _Line(_IF_EQUAL, _SEV_TYPE << 8, true="notify", false="allow"),
    # With this flag they are fstat(), which is called often and names no file.
    _Line(_LOAD, _argument_offset(3), label="newfstatat"),
    _Line(_IF_ANY_BIT, _AT_EMPTY_PATH, true="allow", false="notify"),
    _Line(_LOAD, _argument_offset(2), label="statx"),
    _Line(_IF_ANY_BIT, _AT_EMPTY_PATH, true="allow", false="notify"),
    _Line(_RETURN, _ALLOW, label="allow"),
    _Line(_RETURN, _NOTIFY, label="notify"),
)


def program(kvm_requests: Collection[int] | None = None) -> bytes:
    """The filter: an array of struct sock_filter.

    Args:
        kvm_requests: the numbers of KVM's ioctls that are asked about; None: all.
    """
    lines = _HEAD + (_ANY_OF_KVM if kvm_requests is None else _only(kvm_requests)) + _TAIL
    places = {line.label: number for number, line in enumerate(lines) if line.label}

    def jump(label: str, number: int) -> int:
        return places[label] - number - 1 if label else 0

    return b"".join(
        _INSTRUCTION.pack(line.code, jump(line.true, number), jump(line.false, number), line.k)
        for number, line in enumerate(lines)
    )
