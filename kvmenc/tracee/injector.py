"""System calls carried out by another process: one thread of it borrowed, for microseconds.

All tracing is done by one thread of ours: ptrace wants that; and KeyboardInterrupt, which Python
raises in the main thread only, cannot come between a stop and its end.
"""

from __future__ import annotations

import ctypes
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self, TypeVar

from kvmenc import procfs
from kvmenc.errors import HostError, errno_name
from kvmenc.tracee.borrow import Borrower
from kvmenc.tracee.copy import Copy, Span, is_mapped
from kvmenc.tracee.gadgets import find_gadgets
from kvmenc.tracee.lock import lock_process
from kvmenc.tracee.scratch import (
    MAX_CALLS,
    Scratch,
    find_scratch,
    map_call,
    random_place,
    unmap_call,
)
from kvmenc.tracee.xstate import xstate_format

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from kvmenc.tracee.frame import SystemCall
    from kvmenc.tracee.target import Target

__all__ = ["Injector"]

T = TypeVar("T")

_PATIENCE_S = 10.0
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 20e-6, 2e-3
_NO_RESULT = -(1 << 63)  # no system call returns that


class Injector:
    """Makes a process call the kernel: a context manager, for one thread of ours at a time.

    Entering it locks out other kvmencs, unmaps what a killed one left, and maps scratch memory;
    leaving it unmaps that. Whenever we die, the process is unharmed: at worst the scratch memory
    stays until the next kvmenc comes.

    Args:
        target: the process.

    Attributes:
        target: as given.

    Raises:
        HostError: on entering: another kvmenc looks at it; it has no thread that may be borrowed.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self._cleanup = ExitStack()
        self._scratch: Scratch | None = None
        self._unfinished: int | None = None  # the thread whose chain we do not know to be over

    def __enter__(self) -> Self:
        pid = self.target.pid
        xstate = xstate_format()  # by a signal: not in the thread that blocks them all
        with ExitStack() as stack:
            stack.enter_context(lock_process(pid))
            self._tracer = stack.enter_context(
                ThreadPoolExecutor(1, "kvmenc-tracer", _block_signals)
            )
            self._borrower = Borrower(self.target, find_gadgets(pid), xstate)
            self._traced(self._unmap_all)
            stack.push(self._leave)
            self._traced(lambda: self._map(0))
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    def _leave(self, kind: type[BaseException] | None, *_exc: object) -> None:
        """Unmap the scratch memory; where that fails, an earlier error is what matters."""
        try:
            self._traced(self._unmap_all)
        except HostError:
            if kind is None and self._is_alive():
                raise
        finally:
            self._scratch = None

    @property
    def stop_us(self) -> list[float]:
        """How long the borrowed thread stood still at most, in microseconds, for each stop so far.

        There is one for each ``run``, and for each time that scratch memory was mapped or unmapped:
        one when entering, two when ``reserve`` gets more.
        """
        return self._borrower.stop_us

    def run(self, calls: Sequence[SystemCall]) -> list[int]:
        """Have the calls made one after the other, in one stop of one thread.

        Args:
            calls: at most 500; what their arguments point to is in the target: see ``reserve``.

        Returns:
            Each result as the kernel returned it: 0 or more, or -errno.

        Raises:
            HostError: the process ended, is stopped, or no thread of it may be borrowed.
        """
        if len(calls) > MAX_CALLS:
            raise ValueError(f"{len(calls)} system calls in one stop; {MAX_CALLS} are the most")
        scratch = self._scratch_now
        return self._traced(lambda: self._run(scratch, tuple(calls))) if calls else []

    def reserve(self, nbytes: int) -> int:
        """The address, in the target, of at least ``nbytes`` of scratch memory.

        It stays valid until more is asked for than there is. What it holds is the caller's affair.

        Raises:
            HostError: it is more than 2 GiB; and as ``run``.
        """
        if self._scratch_now.room_bytes < nbytes:
            self._traced(lambda: self._replace(nbytes))
        return self._scratch_now.room_address

    def copy(self, spans: Sequence[Span]) -> Copy:
        """Spans between us and the target's memory, to be copied one way or the other."""
        return Copy(self.target.pid, spans)

    @property
    def _scratch_now(self) -> Scratch:
        if self._scratch is None:
            raise HostError(
                f"process {self.target.pid} is not being looked at: use `with Injector`"
            )
        return self._scratch

    def _is_alive(self) -> bool:
        try:
            self.target.check_alive()
        except HostError:
            return False
        return True

    def _traced(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the tracing thread."""
        try:
            return self._tracer.submit(work).result()
        except OSError as error:
            if isinstance(error, HostError):
                raise
            self.target.check_alive()
            why = errno_name(error.errno or 0)
            raise HostError(f"process {self.target.pid} could not be traced: {why}") from error

    # -- in the tracing thread --------------------------------------------------------------

    def _run(self, scratch: Scratch, calls: tuple[SystemCall, ...]) -> list[int]:
        results = (ctypes.c_int64 * len(calls))(*[_NO_RESULT] * len(calls))
        nbytes = ctypes.sizeof(results)
        copy = self.copy([Span(ctypes.addressof(results), scratch.results_address, nbytes)])
        copy.send()
        addresses = range(scratch.results_address, scratch.results_address + nbytes, 8)

        def all_there() -> bool:
            copy.fetch()
            return _NO_RESULT not in results

        self._send(calls, tuple(addresses), scratch.set_user, all_there)
        return list(results)

    def _map(self, room_bytes: int) -> None:
        scratch = random_place(self.target.pid, room_bytes)
        pid, address = scratch.pid, scratch.address
        self._send((map_call(scratch),), None, _nothing, lambda: is_mapped(pid, address))
        scratch.set_user(0)
        self._scratch = scratch

    def _unmap(self, scratch: Scratch) -> None:
        pid, address = scratch.pid, scratch.address
        if scratch.user:
            self._borrower.await_end(scratch.user)
        self._send((unmap_call(scratch),), None, _nothing, lambda: not is_mapped(pid, address))

    def _unmap_all(self) -> None:
        for scratch in find_scratch(self.target.pid):
            self._unmap(scratch)

    def _replace(self, room_bytes: int) -> None:
        old = self._scratch_now
        self._map(room_bytes)
        self._unmap(old)

    def _send(
        self,
        calls: tuple[SystemCall, ...],
        results: tuple[int, ...] | None,
        before: Callable[[int], None],
        done: Callable[[], bool],
    ) -> None:
        """Send a thread through ``calls`` and wait until they have been made."""
        if self._unfinished:
            self._borrower.await_end(self._unfinished)
        self._unfinished = self._borrower.send(calls, results, before)
        pause_s, deadline = _SHORTEST_PAUSE_S, time.monotonic() + _PATIENCE_S
        while not done():
            if time.monotonic() > deadline:
                self.target.check_alive()
                raise self._late()
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        self._unfinished = None

    def _late(self) -> HostError:
        pid = self.target.pid
        if procfs.state(pid) in {"T", "t"}:
            why = f"it was stopped meanwhile: continue it (kill -CONT {pid})"
        else:
            why = "its kernel is busy, or out of memory"
        return HostError(
            f"process {pid} has not answered the call for {_PATIENCE_S:g} s: {why}; what is left in"
            " it harms nothing, and the next kvmenc that looks at it clears it away"
        )


def _block_signals() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _nothing(_tid: int) -> None:
    """For chains that write to no scratch memory."""
