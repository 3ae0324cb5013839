"""Which device a path in a system call names, if any.

The path is read from the program's memory, and the answer is given from what was read: another
thread of the program may change it meanwhile, and then gets what it asked for the first time or,
where the kernel reads it again, what a race always gives. This is a stage, no prison.
"""

from __future__ import annotations

import os
import posixpath
import stat
from typing import TYPE_CHECKING

from fakekvm.machine import KVM_PATH, SEV_PATH
from fakekvm.processmemory import ProcessMemory

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["device_named", "read_path"]

_DEVICES = {os.fsencode(path): path for path in (KVM_PATH, SEV_PATH)}
_NAMES = {posixpath.basename(path) for path in _DEVICES}
_PATH_MAX = 4096
_CHUNK_BYTES = 256  # a divisor of the page size: no chunk reaches into a page that is not there


def read_path(tid: int, address: int) -> bytes:
    """A string of a thread's, without the zero byte at its end.

    Raises:
        OSError: EFAULT, or it may not be read.
    """
    memory = ProcessMemory(tid)
    path = b""
    while len(path) < _PATH_MAX:
        size = _CHUNK_BYTES - (address + len(path)) % _CHUNK_BYTES
        chunk, zero, _ = memory.read(address + len(path), size).partition(b"\0")
        path += chunk
        if zero:
            break
    return path


def device_named(path: bytes, folder: Callable[[], bytes], *, follow: bool) -> str | None:
    """The device that a path names.

    Symbolic links are looked at where they can matter: a path whose last name is a device's, or
    which is a link itself.

    Args:
        path: as the program gave it.
        folder: what a relative one starts at.
        follow: whether a link at the path's end is followed.
    """
    name = path.rpartition(b"/")[2]
    if not name or not (follow or name in _NAMES):
        return None
    if not path.startswith(b"/"):
        path = folder() + b"/" + path
    if name not in _NAMES:
        return _DEVICES.get(os.path.realpath(path)) if _is_link(path) else None
    if path in _DEVICES:
        return _DEVICES[path]
    if follow:
        return _DEVICES.get(os.path.realpath(path))
    return _DEVICES.get(os.path.realpath(posixpath.dirname(path)) + b"/" + name)


def _is_link(path: bytes) -> bool:
    try:
        return stat.S_ISLNK(os.lstat(path).st_mode)
    except OSError:
        return False
