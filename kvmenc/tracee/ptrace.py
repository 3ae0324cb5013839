"""The ptrace requests used here: bare calls, errors as OSError.

All requests for one thread must come from one thread of ours: ptrace is a bond of two threads.
"""

from __future__ import annotations

import ctypes
import os

from kvmenc import uapi

__all__ = [
    "cont",
    "detach",
    "event_message",
    "get_regs",
    "get_sigmask",
    "get_xstate",
    "interrupt",
    "listen",
    "seize",
    "set_regs",
    "to_syscall_exit",
    "wait",
    "wait_for_any",
]

_WALL = 0x40000000  # include/uapi/linux/wait.h, __WALL: threads too
_SIGSET_BYTES = 8

# PyDLL keeps the interpreter's lock: no other Python thread gets between two requests while the
# target's thread stands still.
_libc = ctypes.PyDLL(None, use_errno=True)
_ptrace = _libc.ptrace
_ptrace.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong)
_ptrace.restype = ctypes.c_long


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def seize(tid: int, options: int = 0) -> None:
    """PTRACE_SEIZE: be its tracer, with these PTRACE_O_; it runs on."""
    _checked(_ptrace(uapi.PTRACE_SEIZE, tid, 0, options))


def interrupt(tid: int) -> None:
    """PTRACE_INTERRUPT: ask it to stop; ``wait`` for that."""
    _checked(_ptrace(uapi.PTRACE_INTERRUPT, tid, 0, 0))


def wait(tid: int) -> int:
    """Wait until it stops or ends; returns the status of waitpid(2)."""
    return os.waitpid(tid, _WALL)[1]


def wait_for_any() -> tuple[int, int]:
    """Wait for any thread of any process of ours; its id, and the status of waitpid(2)."""
    return os.waitpid(-1, _WALL)


def to_syscall_exit(tid: int) -> None:
    """PTRACE_SYSCALL: let it carry out its call, and stop when that has returned."""
    _checked(_ptrace(uapi.PTRACE_SYSCALL, tid, 0, 0))


def listen(tid: int) -> None:
    """PTRACE_LISTEN: leave it in its group stop until it is continued."""
    _checked(_ptrace(uapi.PTRACE_LISTEN, tid, 0, 0))


def event_message(tid: int) -> int:
    """PTRACE_GETEVENTMSG: of a clone, the new thread's id; of an exec, the former one."""
    message = ctypes.c_ulong()
    _checked(_ptrace(uapi.PTRACE_GETEVENTMSG, tid, 0, ctypes.addressof(message)))
    return message.value


def cont(tid: int, signal: int = 0) -> None:
    """PTRACE_CONT: let it run, and take ``signal`` if that is not 0."""
    _checked(_ptrace(uapi.PTRACE_CONT, tid, 0, signal))


def detach(tid: int) -> None:
    """PTRACE_DETACH: let it run, traced no longer."""
    _checked(_ptrace(uapi.PTRACE_DETACH, tid, 0, 0))


def get_regs(tid: int, address: int) -> None:
    """PTRACE_GETREGS into the ``user_regs_struct`` at ``address``."""
    _checked(_ptrace(uapi.PTRACE_GETREGS, tid, 0, address))


def set_regs(tid: int, address: int) -> None:
    """PTRACE_SETREGS from the ``user_regs_struct`` at ``address``."""
    _checked(_ptrace(uapi.PTRACE_SETREGS, tid, 0, address))


def get_xstate(tid: int, address_of_iovec: int) -> None:
    """PTRACE_GETREGSET of NT_X86_XSTATE; the ``iovec``'s length becomes what there was."""
    _checked(_ptrace(uapi.PTRACE_GETREGSET, tid, uapi.NT_X86_XSTATE, address_of_iovec))


def get_sigmask(tid: int, address: int) -> None:
    """PTRACE_GETSIGMASK: 8 bytes; bit n - 1 is signal n. Source: Linux v6.12, kernel/ptrace.c.

    In a call that has a mask of its own, such as ppoll, it is the one that comes back after it.
    """
    _checked(_ptrace(uapi.PTRACE_GETSIGMASK, tid, _SIGSET_BYTES, address))
