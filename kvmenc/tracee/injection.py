"""One stop of one thread: it is sent on its way through a chain, or left as it was.

Until PTRACE_SETREGS nothing of the thread has changed but bytes below its stack, which nobody
reads. After it the thread needs nobody: should we die right there, the kernel detaches it.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.errors import HostError
from kvmenc.tracee import ptrace
from kvmenc.tracee.copy import Copy, Span
from kvmenc.tracee.threads import handlers_could_run, way_back

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.tracee.frame import Chain
    from kvmenc.tracee.threads import Sleeper

__all__ = ["Injection"]

_STOPPING = {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}


class Injection:
    """A chain and the thread that is to run it; may be tried any number of times.

    Args:
        pid: the process.
        sleeper: the thread, as it was seen asleep.
        chain: made for the thread's stack pointer.
    """

    def __init__(self, pid: int, sleeper: Sleeper, chain: Chain) -> None:
        self._chain = chain
        self._pid = pid
        self._tid = sleeper.tid
        self._caught = sleeper.caught
        span = Span(ctypes.addressof(chain.data), chain.base, ctypes.sizeof(chain.data))
        self._copy = Copy(pid, [span])
        self._regs_address = ctypes.addressof(chain.regs)
        self._iovec_address = ctypes.addressof(chain.state_iovec)
        self._state_bytes = chain.state_iovec.iov_len

    def attempt(self) -> tuple[bool, float]:
        """Stop the thread, start the chain if the thread still sleeps as it was seen, let it go.

        Returns:
            Whether the chain was started; and for how long the thread may have stood still, in
            microseconds: from just before it was asked to stop until it had been let go.

        Raises:
            HostError: the process is stopped.
        """
        with _undisturbed():
            if not self._seize():
                return False, 0.0
            self._rehearse()
            start = time.perf_counter()
            started = self._stop_and_start()
            return started, (time.perf_counter() - start) * 1e6

    def _rehearse(self) -> None:
        """Go through our part of it once, so that the CPU's caches hold it: the stop is shorter."""
        chain = self._chain
        way_back(chain.regs)
        chain.fits_state()
        handlers_could_run(self._caught, chain.sigmask)
        chain.restore(0, 0)
        chain.enter()

    def _seize(self) -> bool:
        """Whether we trace it now; not if it has ended, or the kernel still holds it for another.

        That we may was asked before: so EPERM only means that it is ending, or is traced already,
        be it by a kvmenc that was killed an instant ago.
        """
        try:
            ptrace.seize(self._tid)
        except (ProcessLookupError, PermissionError):
            return False
        return True

    def _stop_and_start(self) -> bool:
        try:
            ptrace.interrupt(self._tid)
            if not self._await_stop():
                return False
            try:
                return self._start()
            finally:
                ptrace.detach(self._tid)
        except ProcessLookupError:  # killed, at any instant: a tracer is told so, and must listen
            with suppress(ChildProcessError):
                ptrace.wait(self._tid)
            return False

    def _await_stop(self) -> bool:
        """Whether it stopped; a signal that comes first is passed on. False: it has ended."""
        while True:
            status = ptrace.wait(self._tid)
            if not os.WIFSTOPPED(status):
                return False
            number, event = os.WSTOPSIG(status), status >> 16
            if event != uapi.PTRACE_EVENT_STOP:
                ptrace.cont(self._tid, number)
            elif number in _STOPPING:
                ptrace.detach(self._tid)  # it stays stopped
                raise HostError(f"process {self._pid} was stopped: continue it first")
            else:
                return True

    def _start(self) -> bool:
        chain, tid = self._chain, self._tid
        ptrace.get_regs(tid, self._regs_address)
        back = way_back(chain.regs)
        if back is None or chain.regs.rsp != chain.stack_pointer:
            return False
        chain.state_iovec.iov_len = self._state_bytes
        ptrace.get_xstate(tid, self._iovec_address)
        ptrace.get_sigmask(tid, chain.sigmask_address)
        if not chain.fits_state() or handlers_could_run(self._caught, chain.sigmask):
            return False
        chain.restore(*back)
        self._copy.send()
        chain.enter()
        ptrace.set_regs(tid, self._regs_address)
        return True


@contextmanager
def _undisturbed() -> Iterator[None]:
    """While a thread stands still for us, we do nothing else, and nobody goes first if we may say.

    A garbage collection takes milliseconds, and so does waiting for a CPU.
    """
    collects, policy, param = gc.isenabled(), os.sched_getscheduler(0), os.sched_getparam(0)
    gc.disable()
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    try:
        yield
    finally:
        with suppress(OSError):
            os.sched_setscheduler(0, policy, param)
        if collects:
            gc.enable()
