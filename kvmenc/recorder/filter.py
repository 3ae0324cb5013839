"""Which system calls of a program stop it for its tracer; all others run as they always do.

Programs of other architectures than x86-64 are let alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
from typing import Any, NamedTuple

from kvmenc import uapi

__all__ = ["install", "instructions"]

_LOAD = uapi.BPF_LD | uapi.BPF_W | uapi.BPF_ABS
_AND = uapi.BPF_ALU | uapi.BPF_AND | uapi.BPF_K
_IF_EQUAL = uapi.BPF_JMP | uapi.BPF_JEQ | uapi.BPF_K
_RETURN = uapi.BPF_RET | uapi.BPF_K

_IOCTL_TYPE = 0xFF00
_FILE_SHARED = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS

_DATA: Any = uapi.seccomp_data

_libc = ctypes.CDLL(None, use_errno=True)


class _Rule(NamedTuple):
    """A call that stops; with a mask, only where an argument, so masked, has this value."""

    nr: int
    argument: int = 0
    mask: int = 0
    value: int = 0


_RULES = (
    _Rule(uapi.SYS_ioctl, 1, _IOCTL_TYPE, uapi.KVMIO << 8),
    _Rule(uapi.SYS_ioctl, 1, _IOCTL_TYPE, uapi.SEV_IOC_TYPE << 8),
    _Rule(uapi.SYS_mmap, 3, _FILE_SHARED, mmap.MAP_SHARED),
    _Rule(uapi.SYS_fcntl, 1, 0xFFFFFFFF, fcntl.F_DUPFD),
    _Rule(uapi.SYS_fcntl, 1, 0xFFFFFFFF, fcntl.F_DUPFD_CLOEXEC),
    *(_Rule(nr) for nr in (uapi.SYS_open, uapi.SYS_openat, uapi.SYS_openat2)),
    *(_Rule(nr) for nr in (uapi.SYS_close, uapi.SYS_close_range)),
    *(_Rule(nr) for nr in (uapi.SYS_dup, uapi.SYS_dup2, uapi.SYS_dup3)),
)


def instructions() -> list[uapi.sock_filter]:
    """The filter, in the kernel's classic BPF: rule by rule, each passing on to the next."""
    arch = _DATA.arch.offset
    code = [
        uapi.sock_filter(_LOAD, 0, 0, arch),
        uapi.sock_filter(_IF_EQUAL, 1, 0, uapi.AUDIT_ARCH_X86_64),
        uapi.sock_filter(_RETURN, 0, 0, uapi.SECCOMP_RET_ALLOW),
    ]
    for rule in _RULES:
        code += _tested(0, rule.nr, _argument(rule))
    return [*code, uapi.sock_filter(_RETURN, 0, 0, uapi.SECCOMP_RET_ALLOW)]


def _argument(rule: _Rule) -> list[uapi.sock_filter]:
    stop = [uapi.sock_filter(_RETURN, 0, 0, uapi.SECCOMP_RET_TRACE)]
    if not rule.mask:
        return stop
    lower_half = _DATA.args.offset + 8 * rule.argument
    return _tested(lower_half, rule.value, stop, rule.mask)


def _tested(
    offset: int, value: int, then: list[uapi.sock_filter], mask: int = 0
) -> list[uapi.sock_filter]:
    """``then``, left out unless the word at ``offset`` is ``value``."""
    masked = [uapi.sock_filter(_AND, 0, 0, mask)] if mask else []
    load, test = (
        uapi.sock_filter(_LOAD, 0, 0, offset),
        uapi.sock_filter(_IF_EQUAL, 0, len(then), value),
    )
    return [load, *masked, test, *then]


def install() -> None:
    """Filter this process and what it will start, for a tracer that there is.

    From here on set-uid programs run without the rights of their owner.

    Raises:
        OSError: the kernel has no seccomp filters, or a sandbox forbids them.
    """
    code = instructions()
    array = (uapi.sock_filter * len(code))(*code)
    program = uapi.sock_fprog(len(code), ctypes.addressof(array))
    _prctl(uapi.PR_SET_NO_NEW_PRIVS, 1)
    _prctl(uapi.PR_SET_SECCOMP, uapi.SECCOMP_MODE_FILTER, ctypes.addressof(program))


def _prctl(*arguments: int) -> None:
    padded = [ctypes.c_ulong(it) for it in (*arguments, 0, 0, 0, 0)[:5]]
    if _libc.prctl(*padded) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
