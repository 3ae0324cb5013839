"""Runs a scratch guest in a thread of its own, at a pace."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Self

from kvmenc import uapi
from kvmenc.errors import HostError
from kvmenc.guest.x86 import FLIP_PORT, TICK_PORT
from kvmenc.kvm import Exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.kvm import Vcpu

__all__ = ["GuestThread"]


class GuestThread:
    """A running guest; a context manager that stops it.

    Args:
        vcpu: loaded with a program that ticks.
        on_flip: told of announcements that reach userspace: gpa, pages, attributes; returns what
            the guest gets back. Without it they are an error.
        on_ring_full: called when the dirty ring is full; it must empty it.
        ticks_per_s: hold the guest to this pace; 0 lets it run free.
    """

    def __init__(
        self,
        vcpu: Vcpu,
        on_flip: Callable[[int, int, int], int] | None = None,
        on_ring_full: Callable[[], object] | None = None,
        ticks_per_s: float = 0.0,
    ) -> None:
        self._vcpu = vcpu
        self._on_flip = on_flip
        self._on_ring_full = on_ring_full
        self._seconds_per_tick = 1 / ticks_per_s if ticks_per_s else 0.0
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._main, name="guest", daemon=True)
        self.ticks = 0

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop at the guest's next tick, and raise what went wrong in it, if anything did."""
        self._stop.set()
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def wait(self, ticks: int, timeout_s: float = 60.0) -> None:
        """Wait until the guest has made so many ticks, while it is alive.

        Raises:
            HostError: it has not within ``timeout_s``; or whatever went wrong in the guest.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            if not self._thread.is_alive():
                self.stop()
            if self.ticks >= ticks:
                return
            if time.monotonic() > deadline:
                msg = f"the scratch guest made {self.ticks} ticks in {timeout_s:g} s, not {ticks}"
                raise HostError(msg)
            time.sleep(0.001)

    def _main(self) -> None:
        try:
            self._run()
        except BaseException as error:
            self._error = error

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            if not self._step():
                continue
            self.ticks += 1
            due += self._seconds_per_tick
            # Waits on the event, so that a stop does not have to wait for the pace.
            self._stop.wait(max(0.0, due - time.monotonic()))

    def _step(self) -> bool:
        """Run to the next exit and answer it; whether it was a tick."""
        reason = self._vcpu.run()
        state = self._vcpu.state
        if reason == Exit.IO and state.io.port == TICK_PORT:
            return True
        if reason == Exit.IO and state.io.port == FLIP_PORT and self._on_flip:
            regs = self._vcpu.registers()
            self._on_flip(regs.rbx, regs.rcx, regs.rdx)
        elif reason == Exit.HYPERCALL and self._on_flip:
            if state.hypercall.nr != uapi.KVM_HC_MAP_GPA_RANGE:
                msg = f"the guest made hypercall {state.hypercall.nr}, which nobody asked for"
                raise HostError(msg)
            state.hypercall.ret = self._on_flip(*state.hypercall.args[:3])
        elif reason == Exit.DIRTY_RING_FULL and self._on_ring_full:
            self._on_ring_full()
        elif reason != Exit.INTR:
            msg = f"the scratch guest stopped unexpectedly: {reason.name}"
            raise HostError(msg)
        return False
