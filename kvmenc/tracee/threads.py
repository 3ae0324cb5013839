"""Which threads may be borrowed: those that sleep so that being woken leaves no trace.

A stop interrupts the system call in which a thread sleeps. The kernel restarts most of them by
itself; after our chain that is for us to do, and we cannot do it for all: rt_sigreturn gives up
what the kernel keeps for a restart (Linux v6.12, arch/x86/kernel/signal_64.c, restore_sigcontext),
and some calls return EINTR after any stop (epoll_wait, sigtimedwait and others: signal(7)). So only
the sleeps below are taken, told from outside before the thread is touched.

A sleep with a time-out is let go by the kernel as restart_syscall, of which nobody can tell what it
was. So a thread that was stopped in one, but not led away, is not taken again before it has woken.

And no signal handler of the process may be able to run in the thread: a sleep that a handler cuts
short returns EINTR, which a restart by us would swallow. QEMU blocks its handled signals in every
thread but the main one and the vCPUs, which need one to be kicked out of the guest.
"""

from __future__ import annotations

import errno
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc import procfs, uapi
from kvmenc.procfs import NoProcess

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = [
    "Sleeper",
    "handlers_could_run",
    "has_left",
    "leaves_no_trace",
    "look",
    "sleepers",
    "way_back",
]

_FUTEX_FLAGS = uapi.FUTEX_PRIVATE_FLAG | uapi.FUTEX_CLOCK_REALTIME
_INTERRUPTED = {
    uapi.ERESTARTSYS,
    uapi.ERESTARTNOINTR,
    uapi.ERESTARTNOHAND,
    uapi.ERESTART_RESTARTBLOCK,
}
# Raised by the thread's own instructions, so not while it sleeps; and SETXID of the GNU C library
# (nptl/nptlP.h), whose handler returns to the call that it interrupted.
_HARMLESS = {
    signal.SIGILL,
    signal.SIGTRAP,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGSEGV,
    signal.SIGSYS,
    33,
}
_USER_CS = 0x33  # 64-bit code: arch/x86/include/asm/segment.h, __USER_CS
_HARMLESS_MASK = sum(1 << (number - 1) for number in _HARMLESS)


@dataclass(frozen=True, slots=True)
class Sleeper:
    """A thread as it was seen, asleep.

    Attributes:
        tid: its id.
        stack_pointer: where its stack ends.
        caught: the process's handled signals; bit n - 1 is signal n.
        ends_early: its sleep would return EINTR with the time that remains, as after a signal.
    """

    tid: int
    stack_pointer: int
    caught: int
    ends_early: bool


def handlers_could_run(caught: int, blocked: int) -> bool:
    """Whether a signal that the process handles could arrive in a thread with this signal mask."""
    return bool(caught & ~blocked & ~_HARMLESS_MASK)


def leaves_no_trace(number: int, args: tuple[int, ...]) -> bool:
    """Whether a sleep can be interrupted and taken up again, or ends with EINTR and what remains.

    Args:
        number: the system call's.
        args: its six arguments.
    """
    return _goes_on(number, args) or _tells_what_remains(number, args)


def _goes_on(number: int, args: tuple[int, ...]) -> bool:
    """Whether calling again with the same arguments is the same sleep: nothing in them runs out."""
    match number:
        case uapi.SYS_futex:
            command, forever = args[1] & ~_FUTEX_FLAGS, args[3] == 0
            # The time-out of WAIT_BITSET is a point in time.
            return command == uapi.FUTEX_WAIT_BITSET or (command == uapi.FUTEX_WAIT and forever)
        case uapi.SYS_ppoll:
            return args[3] == 0  # no signal mask of its own; what remains is written to args[2]
        case uapi.SYS_poll:
            return bool(args[2] & 1 << 31)  # int timeout < 0: forever
        case uapi.SYS_clock_nanosleep:
            return bool(args[1] & uapi.TIMER_ABSTIME)
    return False


def _tells_what_remains(number: int, args: tuple[int, ...]) -> bool:
    """Whether it is a sleep whose caller asked to be told what remains, and so expects EINTR."""
    match number:
        case uapi.SYS_nanosleep:
            return args[1] != 0
        case uapi.SYS_clock_nanosleep:
            return not args[1] & uapi.TIMER_ABSTIME and args[3] != 0
    return False


def way_back(regs: uapi.user_regs_struct) -> tuple[int, int] | None:
    """How a stopped thread goes on: rip and rax; None: it must not be led astray here.

    Only in a sleep of its own does a thread have a way back. So a thread in the middle of a chain
    of a kvmenc that was killed has none, nor one in a restartable sequence or any other code.
    """
    error = (1 << 64) - regs.rax
    if error not in _INTERRUPTED or regs.cs != _USER_CS:
        return None
    number = regs.orig_rax
    args = (regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9)
    if _goes_on(number, args):
        return regs.rip - 2, number  # the syscall instruction again
    if _tells_what_remains(number, args):
        return regs.rip, -errno.EINTR & (1 << 64) - 1
    return None


def look(pid: int, tid: int) -> Sleeper | None:
    """The thread, if it may be borrowed now: it sleeps as it should, handled signals blocked.

    Raises:
        HostError: not permitted.
    """
    try:
        words = procfs.thread_syscall(tid)
        status = procfs.status(tid)
    except NoProcess:
        return None
    if words is None or len(words) != 9 or int(status["Tgid"]) != pid:
        return None
    number, *args, stack_pointer, _ = words
    caught, blocked = int(status["SigCgt"], 16), int(status["SigBlk"], 16)
    if not leaves_no_trace(number, tuple(args)) or handlers_could_run(caught, blocked):
        return None
    return Sleeper(tid, stack_pointer, caught, _tells_what_remains(number, tuple(args)))


def sleepers(pid: int, avoid: Collection[int]) -> list[Sleeper]:
    """The threads of a process that may be borrowed now, the best first.

    Args:
        pid: the process; its main thread is never among them.
        avoid: further threads to leave alone.

    Raises:
        HostError: no such process; not permitted.
    """
    others = [tid for tid in procfs.thread_ids(pid) if tid != pid and tid not in avoid]
    found = [sleeper for sleeper in (look(pid, tid) for tid in others) if sleeper]
    return sorted(found, key=lambda sleeper: (sleeper.ends_early, sleeper.tid))


def has_left(pid: int, tid: int, after_syscall: int) -> bool:
    """Whether a thread is certainly in no chain: it sleeps in a call of its own, or has ended.

    Args:
        pid: its process.
        tid: the thread.
        after_syscall: where the chain's system calls return to.
    """
    if tid not in procfs.thread_ids(pid):
        return True
    try:
        words = procfs.thread_syscall(tid)
    except NoProcess:
        return True
    own = words is not None and words[0] >= 0 and words[0] != uapi.SYS_rt_sigreturn
    return own and words is not None and words[-1] != after_syscall
