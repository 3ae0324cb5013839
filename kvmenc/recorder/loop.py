"""Follows a program and all that it starts, from stop to stop, until nothing of it is left.

A thread stops before a call that the filter names, and after it if that is to be seen; when it
starts another, or another program; and for signals, which it gets as if nobody looked on. Source:
ptrace(2); Linux v6.12, kernel/ptrace.c and kernel/signal.c.
"""

from __future__ import annotations

import ctypes
import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.errors import HostError
from kvmenc.tracee import ptrace

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.recorder.watch import After, Watch

__all__ = ["Loop"]

_SYSCALL_STOP = signal.SIGTRAP | 0x80
_STOPPING = (signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU)
_BIRTHS = (uapi.PTRACE_EVENT_FORK, uapi.PTRACE_EVENT_VFORK, uapi.PTRACE_EVENT_CLONE)


class Loop:
    """One program.

    Args:
        pid: its first process, which we trace.
        watch: told of what happens.
        say: prints a message for people.
        on_exec: told of each program that a process executes, by its id.
    """

    def __init__(
        self, pid: int, watch: Watch, say: Callable[[str], None], on_exec: Callable[[int], None]
    ) -> None:
        self._pid = pid
        self._watch = watch
        self._say = say
        self._on_exec = on_exec
        self._known = {pid}
        self._early: set[int] = set()
        self._after: dict[int, After] = {}
        self._said: set[str] = set()
        self._regs = uapi.user_regs_struct()
        self._status = 0

    def run(self) -> int:
        """Until all have ended; returns what waitpid(2) told of the first process."""
        while True:
            try:
                tid, status = ptrace.wait_for_any()
            except ChildProcessError:
                return self._status
            if os.WIFSTOPPED(status):
                with suppress(ProcessLookupError):  # killed, which is told next
                    self._stopped(tid, os.WSTOPSIG(status), status >> 16)
            else:
                self._ended(tid, status)

    def _stopped(self, tid: int, number: int, event: int) -> None:
        if event == uapi.PTRACE_EVENT_SECCOMP:
            self._enters(tid)
        elif number == _SYSCALL_STOP:
            self._leaves(tid)
        elif event in _BIRTHS:
            self._born(tid)
        elif event == uapi.PTRACE_EVENT_EXEC:
            self._executed(tid)
        elif event == uapi.PTRACE_EVENT_STOP:
            self._stops(tid, number)
        else:
            ptrace.cont(tid, number)

    def _enters(self, tid: int) -> None:
        regs = self._read_regs(tid)
        args = (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9)
        after = self._noted(lambda: self._watch.enters(tid, regs.orig_rax, args))
        if after:
            self._after[tid] = after
            ptrace.to_syscall_exit(tid)
        else:
            ptrace.cont(tid)

    def _leaves(self, tid: int) -> None:
        after = self._after.pop(tid, None)
        if after:
            result = ctypes.c_long(self._read_regs(tid).rax).value
            self._noted(lambda: after(result))
        ptrace.cont(tid)

    def _born(self, tid: int) -> None:
        """What is new waits until it is known whose it is."""
        new = ptrace.event_message(tid)
        self._watch.born(tid, new)
        self._known.add(new)
        if new in self._early:
            self._early.discard(new)
            with suppress(ProcessLookupError):
                ptrace.cont(new)
        ptrace.cont(tid)

    def _executed(self, pid: int) -> None:
        self._after.pop(pid, None)
        self._known.discard(ptrace.event_message(pid))
        self._known.add(pid)
        self._watch.executed(pid)
        self._on_exec(pid)
        ptrace.cont(pid)

    def _stops(self, tid: int, number: int) -> None:
        if tid not in self._known:
            self._early.add(tid)
        elif number in _STOPPING:
            ptrace.listen(tid)
        else:
            ptrace.cont(tid)

    def _ended(self, tid: int, status: int) -> None:
        self._after.pop(tid, None)
        self._known.discard(tid)
        self._early.discard(tid)
        self._watch.ended(tid)
        if tid == self._pid:
            self._status = status

    def _read_regs(self, tid: int) -> uapi.user_regs_struct:
        ptrace.get_regs(tid, ctypes.addressof(self._regs))
        return self._regs

    def _noted(self, note: Callable[[], After | None]) -> After | None:
        """Whatever goes wrong with the recording is said once; the program goes on."""
        try:
            return note()
        except HostError as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                self._say(f"not all is recorded: {error}")
            return None
