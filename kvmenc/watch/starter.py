"""Has QEMU start its dirty log, again and again, and sees each time when t = 0 was."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from kvmenc.backend.tracee import TraceeBackend
from kvmenc.dirtysource import PeekSource
from kvmenc.qemu.dirtyrate import DirtyRate
from kvmenc.qemu.slotids import SlotTrace
from kvmenc.watch.peeks import Peeks
from kvmenc.watch.schedule import calc_time_s
from kvmenc.watch.start import find_start
from kvmenc.watch.wishes import CannotPeek

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from kvmenc.memory.layout import Layout
    from kvmenc.qemu.facts import Facts
    from kvmenc.qemu.monitor import Monitor
    from kvmenc.tracee import Injector
    from kvmenc.watch.start import Start

__all__ = ["LogStarter"]


class LogStarter:
    """The dirty log of a running QEMU.

    Before the first window comes a measurement of a second: only while QEMU starts a log does it
    tell the slots' numbers, and show that it uses manual protect.

    Args:
        monitor: of the QEMU.
        facts: of it.
        injector: makes its process look.
        expected: its layout, as the monitor tells it.

    Attributes:
        layout: the same with KVM's numbers.

    Raises:
        CannotPeek: it cannot be shown that looking takes nothing.
        HostError: QEMU or its process does not play along.
    """

    def __init__(
        self, monitor: Monitor, facts: Facts, injector: Injector, expected: Layout
    ) -> None:
        self._rate = DirtyRate(monitor)
        with SlotTrace(monitor, facts) as trace:
            self._rate.start(1)
            self.layout = trace.numbered(expected)
            if not trace.shows_manual_protect():
                self._rate.wait()
                raise CannotPeek(
                    "this VM's dirty log is not used with manual protect (KVM_CAP_MANUAL_DIRTY_LOG"
                    "_PROTECT2), and without it looking would take dirty bits away"
                )
        backend = TraceeBackend(injector, self.layout.slots)
        self._source = PeekSource(backend, injector.target.vm_fd)

    def start(self, seconds: float) -> tuple[Peeks, Start]:
        """Have the log started for a window of ``seconds``; returns when t = 0 has been seen.

        Raises:
            HostError: QEMU refuses, or its process does not play along.
        """
        self._rate.wait()
        peeks = Peeks(self._source, self.layout.logged_slots)
        with ThreadPoolExecutor(1) as asking:
            # Looks go on while QEMU answers: on a small guest the log is cleared within
            # milliseconds, long before an answer comes.
            asked = asking.submit(self._rate.start, calc_time_s(seconds))
            start = find_start(peeks, self.layout.logged_slots, _refusal(asked), time.monotonic)
        return peeks, start

    def wait(self) -> None:
        """Until the log is off again."""
        self._rate.wait()


def _refusal(asked: Future[None]) -> Callable[[], None]:
    """Raises what the asking raised, once it is over."""
    return lambda: asked.result() if asked.done() else None
