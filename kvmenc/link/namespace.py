"""Work done inside another network namespace, by a thread that ends there."""

from __future__ import annotations

import ctypes
import errno
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from kvmenc.errors import HostError, InputError, NotPermitted, errno_name

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["inside"]

Result = TypeVar("Result")

_CLONE_NEWNET = 0x40000000
#: Where ``ip netns add`` puts names.
_NAMES = Path("/run/netns")


def inside(netns: str, work: Callable[[], Result]) -> Result:
    """Call ``work`` in a namespace. The caller's thread stays where it is.

    Args:
        netns: a name of ``ip netns``, or a path such as ``/proc/PID/ns/net``.
        work: is called in a thread of its own.

    Raises:
        InputError: no such namespace.
        NotPermitted: only root may enter it.
    """
    fd = _open(netns)
    try:
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(_entered, netns, fd, work).result()
    finally:
        os.close(fd)


def _open(netns: str) -> int:
    path = Path(netns) if "/" in netns else _NAMES / netns
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError as error:
        raise _not_permitted(netns, error) from error
    except (OSError, ValueError) as error:
        raise InputError(f"there is no network namespace {netns!r}: see `ip netns list`") from error


def _entered(netns: str, fd: int, work: Callable[[], Result]) -> Result:
    if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET):
        number = ctypes.get_errno()
        error = OSError(number, os.strerror(number))
        if isinstance(error, PermissionError):
            raise _not_permitted(netns, error)
        if number == errno.EINVAL:
            raise InputError(f"{netns!r} is not a network namespace")
        raise HostError(f"setns({netns}) failed: {errno_name(number)}")
    return work()


def _not_permitted(netns: str, error: OSError) -> NotPermitted:
    name = errno_name(error.errno or 0)
    return NotPermitted(f"entering network namespace {netns!r}: {name}: run as root")
