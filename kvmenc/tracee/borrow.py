"""Finds a thread that may be borrowed, and sends it through a chain."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from kvmenc import procfs
from kvmenc.errors import HostError
from kvmenc.tracee.frame import Chain, SystemCall
from kvmenc.tracee.injection import Injection
from kvmenc.tracee.threads import Sleeper, has_left, look, sleepers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvmenc.tracee.gadgets import Gadgets
    from kvmenc.tracee.target import Target
    from kvmenc.tracee.xstate import XstateFormat

__all__ = ["Borrower"]

_PATIENCE_S = 2.0
_PAUSE_S = 0.5e-3
_ROOM_BELOW_BYTES = 16384
_Key = tuple[Sleeper, tuple[SystemCall, ...], tuple[int, ...] | None]


class Borrower:
    """Borrows threads of one process; all its methods are for one thread of ours.

    Args:
        target: the process.
        gadgets: of the process.
        xstate: of this host.

    Attributes:
        stop_us: how long a thread stood still for each chain at most, in microseconds; tries that
            found a thread awake are in it.
    """

    def __init__(self, target: Target, gadgets: Gadgets, xstate: XstateFormat) -> None:
        self.stop_us: list[float] = []
        self._target = target
        self._gadgets = gadgets
        self._xstate = xstate
        self._last: tuple[_Key, Injection] | None = None

    def send(
        self,
        calls: tuple[SystemCall, ...],
        results: tuple[int, ...] | None,
        before: Callable[[int], None],
    ) -> int:
        """Send a thread through ``calls``; they are made after the return.

        Args:
            calls: at least one.
            results: where in the target each result goes; None: nowhere.
            before: called with the id of each thread that is going to be tried.

        Returns:
            The thread's id.

        Raises:
            HostError: no thread could be had; the process ended, or is stopped.
        """
        stopped_us = 0.0
        for sleeper in self._candidates():
            injection = self._injection((sleeper, calls, results))
            if injection is None:
                continue
            before(sleeper.tid)
            started, us = injection.attempt()
            stopped_us += us
            if started:
                self.stop_us.append(stopped_us)
                return sleeper.tid
        raise self._no_thread()

    def await_end(self, tid: int) -> None:
        """Wait until a thread is certainly out of any chain.

        Raises:
            HostError: it does not come out of it; the process ended.
        """
        deadline = time.monotonic() + _PATIENCE_S
        while not has_left(self._target.pid, tid, self._gadgets.after_syscall):
            self._target.check_alive()
            if time.monotonic() > deadline:
                pid = self._target.pid
                raise HostError(
                    f"thread {tid} of process {pid} may still be on its way through a call that"
                    " kvmenc asked for: try again later"
                )
            time.sleep(_PAUSE_S)

    def _candidates(self) -> Iterator[Sleeper]:
        """Threads to be tried, the last one first, again and again while there is time.

        Looking at that one first saves looking at all of a large VMM's hundreds.
        """
        target, deadline = self._target, time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            target.check_alive()
            last = self._last[0][0].tid if self._last else None
            again = look(target.pid, last) if last else None
            if again and not again.ends_early:
                yield again
            yield from sleepers(target.pid, target.avoid)
            time.sleep(_PAUSE_S)

    def _injection(self, key: _Key) -> Injection | None:
        """Made once for a thread that sleeps at one place; None: its stack has no room."""
        if self._last is None or self._last[0] != key:
            sleeper, calls, results = key
            chain = Chain(calls, results, sleeper.stack_pointer, self._gadgets, self._xstate)
            if not _has_room(self._target.pid, chain):
                return None
            self._last = key, Injection(self._target.pid, sleeper, chain)
        return self._last[1]

    def _no_thread(self) -> HostError:
        pid = self._target.pid
        if procfs.state(pid) in {"T", "t"}:
            return HostError(f"process {pid} was stopped: continue it first (kill -CONT {pid})")
        tracers = {procfs.status_field(tid, "TracerPid") for tid in procfs.thread_ids(pid)} - {"0"}
        if tracers:
            return HostError(f"process {pid} is traced by process {tracers.pop()}: end that first")
        return HostError(
            f"no thread of process {pid} could be borrowed within {_PATIENCE_S:g} s: it takes one,"
            " neither the main thread nor a vCPU, that sleeps (in futex, poll, ppoll or nanosleep)"
            " and has the signals blocked that the process handles, as QEMU's RCU thread"
        )


def _has_room(pid: int, chain: Chain) -> bool:
    """Whether the chain, and a signal frame below it, lie in the mapping of the thread's stack."""
    lowest = chain.base - _ROOM_BELOW_BYTES
    return any(
        m.start <= lowest and chain.stack_pointer < m.end and m.perms.startswith("rw")
        for m in procfs.mappings(pid)
    )
