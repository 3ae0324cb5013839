"""Seccomp's user notification: a system call waits until another process has answered it.

A call that was received can be ended by no signal but a deadly one (WAIT_KILLABLE_RECV, Linux
v5.19); without that a signal would make the program call again, and what a dirty log gave the first
time would be lost. A signal before that leaves no trace, since the call was not looked at yet.
Source: Linux v6.12, kernel/seccomp.c; include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import select
import struct
from contextlib import suppress
from typing import NamedTuple

from fakekvm.errors import oserror

__all__ = ["Listener", "Notification", "install_filter"]

_PR_SET_NO_NEW_PRIVS = 38
_SYS_SECCOMP = 317
_SECCOMP_SET_MODE_FILTER = 1
_NEW_LISTENER, _WAIT_KILLABLE_RECV = 1 << 3, 1 << 5  # SECCOMP_FILTER_FLAG_

# SECCOMP_IOCTL_NOTIF_
_RECV = 0xC0502100
_SEND = 0xC0182101
_ID_VALID = 0x40082102
_ADDFD = 0x40182103
_SET_FLAGS = 0x40082104

_SYNC_WAKE_UP = 1  # SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_ADDFD_SEND = 2  # SECCOMP_ADDFD_FLAG_SEND

_NOTIF = struct.Struct("<QI4xi12x6Q")  # id, pid, flags, data: nr, arch, instruction_pointer, args
_RESPONSE = struct.Struct("<QqiI")  # id, val, error, flags
_ADDED = struct.Struct("<QIIII")  # id, flags, srcfd, newfd, newfd_flags
_ID = struct.Struct("<Q")
_EMPTY = bytes(_NOTIF.size)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class _Program(ctypes.Structure):
    """struct sock_fprog."""

    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install_filter(code: bytes) -> int:
    """Filter this process and what it will start; returns the listener's descriptor.

    Only for a child that goes on to exec: from here on it waits for an answer at every file that
    it opens.

    Args:
        code: the filter.

    Raises:
        OSError: what the kernel fails with: EINVAL, ENOSYS: it is too old, or built without;
            EBUSY: such a filter is there already.
    """
    buffer = ctypes.create_string_buffer(code, len(code))
    filter_ = _Program(len(code) // 8, ctypes.addressof(buffer))
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, *map(ctypes.c_ulong, (1, 0, 0, 0))))
    numbers = (_SYS_SECCOMP, _SECCOMP_SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE_RECV)
    return _checked(_libc.syscall(*map(ctypes.c_long, numbers), ctypes.byref(filter_)))


def _checked(result: int) -> int:
    if result < 0:
        raise oserror(ctypes.get_errno())
    return result


class Notification(NamedTuple):
    """A system call that waits for its answer.

    Attributes:
        id: what the answer goes to.
        tid: the thread that makes it.
        nr: its number.
        arg0: its first argument, an unsigned number; and so on.
    """

    id: int
    tid: int
    nr: int
    arg0: int = 0
    arg1: int = 0
    arg2: int = 0
    arg3: int = 0
    arg4: int = 0
    arg5: int = 0

    @property
    def args(self) -> tuple[int, ...]:
        """All arguments."""
        return self[3:]


def _kernel_version() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", os.uname().release)[:2])


class Listener:
    """The descriptor at which calls arrive and are answered; any thread may answer.

    An answer to a call that is no more is dropped: the thread that made it was killed. So is a
    second answer.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        # Older kernels let RECV wait for ever where nobody is left; polling takes 3 us a call.
        self._polls_first = _kernel_version() < (6, 11)
        # Hands the CPU over at once; without it (before Linux v6.7) a round trip takes longer.
        with suppress(OSError):
            fcntl.ioctl(fd, _SET_FLAGS, _SYNC_WAKE_UP)

    def close(self) -> None:
        """Calls still waiting, and all later ones, fail with ENOSYS."""
        os.close(self._fd)

    def receive(self) -> Notification | None:
        """Wait for the next call; None: no filtered process is left."""
        while True:
            if self._polls_first and self._is_over(None):
                return None
            try:
                return Notification(*_NOTIF.unpack(fcntl.ioctl(self._fd, _RECV, _EMPTY)))
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EINTR):
                    raise
                if self._is_over(0):
                    return None
                # It was interrupted, and is no more.

    def _is_over(self, timeout_ms: int | None) -> bool:
        """Wait for a call, or that nobody is left."""
        events = [flags for _fd, flags in self._poll.poll(timeout_ms)]
        return bool(events) and not events[0] & select.POLLIN

    def is_waiting(self, call: Notification) -> bool:
        """Whether the call still waits: then its thread is there, and its number nobody else's."""
        try:
            fcntl.ioctl(self._fd, _ID_VALID, _ID.pack(call.id))
        except OSError:
            return False
        return True

    def answer(self, call: Notification, value: int) -> None:
        """The call returns ``value``."""
        self._send(call, value, 0, 0)

    def fail(self, call: Notification, number: int) -> None:
        """The call fails with this errno."""
        self._send(call, 0, -number, 0)

    def let_pass(self, call: Notification) -> None:
        """The kernel carries the call out, as without a filter."""
        self._send(call, 0, 0, _CONTINUE)

    def answer_with_fd(self, call: Notification, fd: int, flags: int) -> None:
        """The call returns a new descriptor of what ``fd`` is of.

        Args:
            call: it.
            fd: of this process.
            flags: O_CLOEXEC or 0.

        Raises:
            OSError: the program can have no more descriptors (EMFILE); ENOENT: it is no more.
        """
        added = _ADDED.pack(call.id, _ADDFD_SEND, fd, 0, flags)
        while True:
            try:
                fcntl.ioctl(self._fd, _ADDFD, added)
            except InterruptedError:  # a signal for us
                continue
            return

    def _send(self, call: Notification, value: int, error: int, flags: int) -> None:
        try:
            fcntl.ioctl(self._fd, _SEND, _RESPONSE.pack(call.id, value, error, flags))
        except OSError as failure:
            if failure.errno not in (errno.ENOENT, errno.EINPROGRESS):
                raise
