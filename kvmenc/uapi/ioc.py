"""How Linux makes an ioctl number out of a direction, a type, a number and an argument's size.

Source: include/uapi/asm-generic/ioctl.h (v6.12). kvmenc's interfaces exist on x86-64 (and on
others that use this generic layout: arm64, riscv, s390); powerpc, mips and sparc differ there.
"""

from __future__ import annotations

import ctypes
from typing import Self

_IOC_NRBITS, _IOC_TYPEBITS, _IOC_SIZEBITS = 8, 8, 14
_IOC_TYPESHIFT = _IOC_NRBITS
_IOC_SIZESHIFT = _IOC_TYPESHIFT + _IOC_TYPEBITS
_IOC_DIRSHIFT = _IOC_SIZESHIFT + _IOC_SIZEBITS

_IOC_NONE, _IOC_WRITE, _IOC_READ = 0, 1, 2

# Structures, and the plain C types that KVM's ioctls point to.
ArgType = type[ctypes.Structure] | type[ctypes.c_ulong] | type[ctypes.c_uint64]


class Ioctl(int):
    """An ioctl number that knows its kernel name and its argument's type.

    Two out-of-tree ioctls can share one number (see ``page_enc``), so the name cannot be looked up
    from the number: it travels with it.
    """

    name: str
    argtype: ArgType | None

    def __new__(cls, number: int, name: str, argtype: ArgType | None) -> Self:
        """Attach a name and an argument type to a number."""
        self = super().__new__(cls, number)
        self.name = name
        self.argtype = argtype
        return self

    def __repr__(self) -> str:
        return f"{self.name}={int(self):#010x}"

    @property
    def size(self) -> int:
        """Bytes that the number says its argument has; 0 for plain integers."""
        return (self >> _IOC_SIZESHIFT) & ((1 << _IOC_SIZEBITS) - 1)

    @property
    def nr(self) -> int:
        """The lowest byte: the number within its type."""
        return self & 0xFF


def ioc_number(direction: int, kind: int, nr: int, nbytes: int) -> int:
    """The kernel's _IOC; directions are 1: into the kernel, 2: out of it, 3: both."""
    return direction << _IOC_DIRSHIFT | nbytes << _IOC_SIZESHIFT | kind << _IOC_TYPESHIFT | nr


def _ioc(name: str, direction: int, kind: int, nr: int, argtype: ArgType | None) -> Ioctl:
    size = ctypes.sizeof(argtype) if argtype is not None else 0
    return Ioctl(ioc_number(direction, kind, nr, size), name, argtype)


def _IO(name: str, kind: int, nr: int) -> Ioctl:  # noqa: N802 - the kernel's macro
    return _ioc(name, _IOC_NONE, kind, nr, None)


def _IOR(name: str, kind: int, nr: int, argtype: ArgType) -> Ioctl:  # noqa: N802
    return _ioc(name, _IOC_READ, kind, nr, argtype)


def _IOW(name: str, kind: int, nr: int, argtype: ArgType) -> Ioctl:  # noqa: N802
    return _ioc(name, _IOC_WRITE, kind, nr, argtype)


def _IOWR(name: str, kind: int, nr: int, argtype: ArgType) -> Ioctl:  # noqa: N802
    return _ioc(name, _IOC_READ | _IOC_WRITE, kind, nr, argtype)
