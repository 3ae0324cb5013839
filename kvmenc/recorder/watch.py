"""What the traced system calls mean: those of KVM are kept, others only followed.

Not followed are descriptors that come to a process in other ways than by opening, duplicating or
inheriting them (such as through a socket): what is asked of such is kept, with descriptor -1.
Source: Linux v6.12, the system calls' own; a result from -4095 to -1 is an errno.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from kvmenc import procfs, uapi
from kvmenc.backend.callmemory import NO_FD, read
from kvmenc.backend.recordkeeper import Caller
from kvmenc.backend.recordmodel import MAX_MAPPED_BYTES
from kvmenc.backend.telling import TELL_FD, TELL_REQUEST, told
from kvmenc.recorder.foreign import link_of, text_at
from kvmenc.recorder.process import DEVICES, Process, is_kvm

if TYPE_CHECKING:
    from kvmenc.backend.recordkeeper import Asked, Keeper

__all__ = ["After", "Watch"]

#: Told what a call has returned.
After = Callable[[int], None]
_Args = tuple[int, ...]

_NAMES = tuple(os.path.basename(it) for it in DEVICES)  # noqa: PTH119 - of a device, not a file
_LEAST_ERRNO = -4095
#: The call is made again, or ends with EINTR; the program does not see this.
_RESTARTS = range(-uapi.ERESTART_RESTARTBLOCK, -uapi.ERESTARTSYS + 1)
_LEFT_OUT_FLAGS = os.O_CLOEXEC | 0o100000  # O_LARGEFILE, which 64-bit programs have anyhow
_CLOSE_RANGE_CLOEXEC = 4  # include/uapi/linux/close_range.h
_VCPU = "anon_inode:kvm-vcpu"


class Watch:
    """The processes of one recording.

    Args:
        keeper: keeps what is asked and answered.
        pid: the first process.
    """

    def __init__(self, keeper: Keeper, pid: int) -> None:
        self._keeper = keeper
        self._processes = {pid: Process(pid)}
        self._threads = {pid: self._processes[pid]}
        self._handlers: dict[int, Callable[[int, Process, _Args], After | None]] = {
            uapi.SYS_ioctl: self._ioctl,
            uapi.SYS_mmap: self._mmap,
            uapi.SYS_open: lambda tid, process, args: self._open(tid, process, args[0], args[1]),
            uapi.SYS_openat: lambda tid, process, args: self._open(tid, process, args[1], args[2]),
            uapi.SYS_openat2: self._openat2,
            uapi.SYS_close: lambda tid, process, args: self._close(tid, process, [_int(args[0])]),
            uapi.SYS_close_range: self._close_range,
            uapi.SYS_dup: self._dup,
            uapi.SYS_dup2: self._dup2,
            uapi.SYS_dup3: self._dup2,
            uapi.SYS_fcntl: self._dup,
        }

    def enters(self, tid: int, number: int, args: _Args) -> After | None:
        """A thread makes a system call; returns what to do once it has returned.

        Raises:
            HostError: its memory cannot be read.
            ProcessLookupError: it has been killed meanwhile.
        """
        handler = self._handlers.get(number)
        return handler(tid, self._threads[tid], args) if handler else None

    def born(self, parent: int, tid: int) -> None:
        """A thread has made another, in its own process or in a new one."""
        process = self._threads[parent]
        try:
            pid = procfs.tgid_of(tid)
        except procfs.NoProcess:
            pid = process.pid  # it ends before it does anything
        if pid != process.pid:
            process = self._processes[pid] = Process(pid, process)
        self._threads[tid] = process

    def executed(self, pid: int) -> None:
        """A process runs another program; of its threads one is left, whose id is the process's."""
        process = self._processes[pid]
        self._threads = {k: v for k, v in self._threads.items() if v is not process}
        self._threads[pid] = process
        for symbol in process.executed():
            self._keeper.closing(symbol)

    def ended(self, tid: int) -> None:
        """A thread has ended; the one with the process's id is the last of it."""
        self._threads.pop(tid, None)
        process = self._processes.pop(tid, None)
        if process:
            process.forget()

    def _ioctl(self, tid: int, process: Process, args: _Args) -> After | None:
        fd, request, arg = _int(args[0]), args[1] & 0xFFFFFFFF, args[2]
        if (fd, request) == (TELL_FD, TELL_REQUEST):
            self._tells(tid, process, arg)
            return None
        if fd not in process.fds and not is_kvm(link_of(process.pid, fd)):
            return None
        caller = Caller(tid, process.pid, process.fds)
        return partial(self._answered, process, self._keeper.ask(caller, fd, request, arg))

    def _answered(self, process: Process, asked: Asked, result: int) -> None:
        if result in _RESTARTS:
            return
        number = _errno_of(result)
        value = -1 if number else max(-1, _int(result))  # as the C library's ioctl gives it
        given = self._keeper.answered(asked, value, number)
        if given != NO_FD:
            process.made(value, given)

    def _tells(self, tid: int, process: Process, address: int) -> None:
        seen = told(address, partial(read, process.pid))
        if seen:
            self._keeper.seen(tid, seen.what, seen.value)

    def _mmap(self, tid: int, process: Process, args: _Args) -> After | None:
        length, fd, offset = args[1], _int(args[4]), args[5]
        symbol = process.fds.get(fd)
        fits = 4096 <= length <= MAX_MAPPED_BYTES and offset <= MAX_MAPPED_BYTES
        if symbol is None or not fits or not link_of(process.pid, fd).startswith(_VCPU):
            return None

        def after(result: int) -> None:
            number = _errno_of(result)
            area = None if number else process.map(fd, length, offset)
            self._keeper.mapped(tid, symbol, (length, offset), area, number)

        return after

    def _open(self, tid: int, process: Process, address: int, flags: int) -> After | None:
        path = text_at(process.pid, address)
        if path.rpartition("/")[2] not in _NAMES:
            return None
        kept_flags = flags & 0xFFFFFFFF & ~_LEFT_OUT_FLAGS

        def after(result: int) -> None:
            if number := _errno_of(result):
                if path in DEVICES:
                    self._keeper.opened(tid, path, kept_flags, number)
            elif (device := link_of(process.pid, result)) in DEVICES:
                process.made(result, self._keeper.opened(tid, device, kept_flags))

        return after

    def _openat2(self, tid: int, process: Process, args: _Args) -> After | None:
        how = read(process.pid, args[2], 8)  # struct open_how begins with its flags
        return self._open(tid, process, args[1], int.from_bytes(how or b"", "little"))

    def _close(self, tid: int, process: Process, leaving: list[int]) -> After | None:
        """Close what is mapped here first, so that the kernel finds the last of it closed."""
        last = process.last_of(leaving)
        for symbol in last:
            self._keeper.closing(symbol)
        if not last:
            return None

        def after(_result: int) -> None:
            for symbol in last:
                self._keeper.closed(tid, symbol)

        return after

    def _close_range(self, tid: int, process: Process, args: _Args) -> After | None:
        first, last, flags = (it & 0xFFFFFFFF for it in args[:3])
        if flags & _CLOSE_RANGE_CLOEXEC:
            return None
        return self._close(tid, process, [fd for fd in process.fds if first <= fd <= last])

    def _dup(self, _tid: int, process: Process, args: _Args) -> After | None:
        symbol = process.fds.get(_int(args[0]))
        if symbol is None:
            return None

        def after(result: int) -> None:
            if result >= 0:
                process.fds[result] = symbol

        return after

    def _dup2(self, tid: int, process: Process, args: _Args) -> After | None:
        """A duplicate over another descriptor closes that, unless it is the same."""
        old, new = _int(args[0]), _int(args[1])
        symbol = process.fds.get(old)
        if old == new or (symbol is None and new not in process.fds):
            return None

        def after(result: int) -> None:
            if result < 0:
                return
            closed = self._close(tid, process, [new])
            if symbol is not None:
                process.fds[new] = symbol
            if closed:
                closed(0)

        return after


def _int(value: int) -> int:
    """A register as a C int."""
    return ctypes.c_int(value).value


def _errno_of(result: int) -> int:
    return -result if _LEAST_ERRNO <= result < 0 else 0
