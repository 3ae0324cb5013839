"""The system calls that name a file, and what each answers for a device of the fake."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fakekvm.decode import U32
from fakekvm.errors import oserror
from fakekvm.processmemory import ProcessMemory
from fakekvm.supervisor.filter import Nr
from fakekvm.supervisor.looks import stat_of, statx_of
from fakekvm.supervisor.paths import device_named, read_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fakekvm.calls import File
    from fakekvm.machine import Machine
    from fakekvm.supervisor.notify import Notification

__all__ = ["Asked", "asked_by"]

_AT_FDCWD = -100
_AT_SYMLINK_NOFOLLOW = 0x100


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that names one of the devices.

    Attributes:
        call: it.
        device: which one.
        flags: the call's: those of open(2), or AT_ ones.
    """

    call: Notification
    device: str
    flags: int

    def answer(self, machine: Machine) -> int | File:
        """What the call returns; a file where it opens one.

        Raises:
            OSError: what it fails with.
        """
        if not machine.has_device(self.device):
            raise oserror(errno.ENOENT)
        return _KINDS[self.call.nr].answer(machine, self)

    def write(self, index: int, data: bytes) -> int:
        """Store what an argument points to; returns 0."""
        ProcessMemory(self.call.tid).write(self.call.args[index], data)
        return 0


def asked_by(call: Notification) -> Asked | None:
    """What a call asks about a device; None: it names none.

    Raises:
        OSError: its arguments cannot be read.
    """
    kind = _KINDS[call.nr]
    path = read_path(call.tid, call.args[kind.path])
    flags = kind.flags_of(call)
    device = device_named(path, lambda: kind.folder_of(call), follow=not flags & kind.nofollow)
    return None if device is None else Asked(call, device, flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A system call.

    Attributes:
        answer: it, for a device that the machine has.
        path: the index of the argument that is the path.
        at: the argument before is what a relative path starts at.
        flags: the index of its flags.
        always: flags that it has by itself.
        nofollow: the flag by which links are not followed.
    """

    answer: Callable[[Machine, Asked], int | File]
    path: int = 0
    at: bool = False
    flags: int | None = None
    always: int = 0
    nofollow: int = _AT_SYMLINK_NOFOLLOW

    def flags_of(self, call: Notification) -> int:
        if call.nr == Nr.OPENAT2:  # the first member of struct open_how
            return int.from_bytes(ProcessMemory(call.tid).read(call.args[2], 8), "little")
        return self.always | (0 if self.flags is None else call.args[self.flags] & U32)

    def folder_of(self, call: Notification) -> bytes:
        fd = call.args[self.path - 1] & U32 if self.at else _AT_FDCWD & U32
        name = "cwd" if fd == _AT_FDCWD & U32 else f"fd/{fd}"
        return os.fsencode(Path(f"/proc/{call.tid}/{name}").readlink())


def _open(machine: Machine, asked: Asked) -> int | File:
    if asked.flags & os.O_CREAT and asked.flags & os.O_EXCL:
        raise oserror(errno.EEXIST)
    if asked.flags & os.O_DIRECTORY:
        raise oserror(errno.ENOTDIR)
    return machine.open_file(asked.device, asked.flags)


def _access(machine: Machine, asked: Asked) -> int:
    """The mode is the argument after the path. Nobody may execute a device."""
    mode = asked.call.args[_KINDS[asked.call.nr].path + 1]
    may_not = machine.host.open_errno in (errno.EACCES, errno.EPERM)
    if mode & os.X_OK or (mode & (os.R_OK | os.W_OK) and may_not):
        raise oserror(errno.EACCES)
    return 0


def _stat(_machine: Machine, asked: Asked) -> int:
    return asked.write(_KINDS[asked.call.nr].path + 1, stat_of(asked.device))


def _statx(_machine: Machine, asked: Asked) -> int:
    return asked.write(4, statx_of(asked.device))


def _readlink(_machine: Machine, _asked: Asked) -> int:
    raise oserror(errno.EINVAL)


_KINDS: Mapping[int, _Kind] = {
    Nr.OPEN: _Kind(answer=_open, flags=1, nofollow=os.O_NOFOLLOW),
    Nr.CREAT: _Kind(answer=_open, always=os.O_CREAT | os.O_WRONLY | os.O_TRUNC),
    Nr.OPENAT: _Kind(answer=_open, path=1, at=True, flags=2, nofollow=os.O_NOFOLLOW),
    Nr.OPENAT2: _Kind(answer=_open, path=1, at=True, nofollow=os.O_NOFOLLOW),
    Nr.STAT: _Kind(answer=_stat),
    Nr.LSTAT: _Kind(answer=_stat, always=_AT_SYMLINK_NOFOLLOW),
    Nr.NEWFSTATAT: _Kind(answer=_stat, path=1, at=True, flags=3),
    Nr.STATX: _Kind(answer=_statx, path=1, at=True, flags=2),
    Nr.ACCESS: _Kind(answer=_access),
    Nr.FACCESSAT: _Kind(answer=_access, path=1, at=True),
    Nr.FACCESSAT2: _Kind(answer=_access, path=1, at=True, flags=3),
    Nr.READLINK: _Kind(answer=_readlink, always=_AT_SYMLINK_NOFOLLOW),
    Nr.READLINKAT: _Kind(answer=_readlink, path=1, at=True, always=_AT_SYMLINK_NOFOLLOW),
}
