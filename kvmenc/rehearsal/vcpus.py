"""The guest's vCPUs, held to the time of the migration: they run when it passes, and no further.

A rehearsal does not wait for a network that it does not have: its time is computed, as a plan's is.
A vCPU has a time of its own, and runs until that is the migration's. Between two ioctls of a sync,
too, it goes a little way: so a flip or a write can come between the readings.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Protocol

from fakekvm.guests import Flip, PortOut, Rest, WritePages
from kvmenc.errors import HostError
from kvmenc.guest.x86 import TICK_PORT
from kvmenc.kvm import Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from fakekvm.guests import Script, Step
    from fakekvm.scripts import Scripts, WritableGfns
    from kvmenc.kvm import Vcpu

__all__ = ["UP_PORT", "Clocked", "Guest", "PacedVcpu", "Stepped", "Threaded", "Timed"]

#: Where a guest says that it has booted, as in fakekvm's scenarios.
UP_PORT = 0xF4
# A guest that writes as fast as it can: about 1 GB/s. A flip is a hypercall.
_WRITE_MS, _FLIP_MS = 0.004, 0.002
_STEP_PAGES = 64
# So far may a thread be ahead of the migration's time.
_AHEAD_MS = 5.0
_PATIENCE_S = 60.0


class Timed:
    """Scripts that keep the time, and stop at every step to let it be looked at.

    Args:
        scripts: what vCPUs do. A rest is time that passes.

    Attributes:
        about: as of the scripts.
        ms: each vCPU's time.
    """

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self.about = scripts.about
        self.ms: defaultdict[int, float] = defaultdict(float)

    def script(self, vm: int, vcpu: int, writable: WritableGfns) -> Script:
        """The same steps, in small ones."""
        for step in self._scripts.script(vm, vcpu, writable):
            if isinstance(step, Rest):
                self.ms[vcpu] += step.seconds * 1e3
                yield PortOut(TICK_PORT, 0)
            elif isinstance(step, WritePages):
                yield from self._written(step, vcpu)
            else:
                yield step
                if isinstance(step, Flip):
                    self.ms[vcpu] += _FLIP_MS
                    yield PortOut(TICK_PORT, 0)

    def _written(self, step: WritePages, vcpu: int) -> Iterator[Step]:
        for first in range(0, len(step.gfns), _STEP_PAGES):
            some = step.gfns[first : first + _STEP_PAGES]
            yield WritePages(some, step.value)
            self.ms[vcpu] += len(some) * _WRITE_MS
            yield PortOut(TICK_PORT, 0)


class PacedVcpu(Protocol):
    """A vCPU whose time is known.

    Attributes:
        is_up: it has said that it has booted.
        halted: it does nothing any more.
    """

    is_up: bool
    halted: bool

    @property
    def ms(self) -> float:
        """Its time."""

    def run(self) -> None:
        """Go on to the next exit."""


class Clocked:
    """A vCPU whose time something else keeps.

    Args:
        vcpu: loaded.
        clock: its time, in ms, given how many ticks it has made.
    """

    def __init__(self, vcpu: Vcpu, clock: Callable[[int], float]) -> None:
        self._vcpu, self._clock = vcpu, clock
        self._ticks = 0
        self.is_up = self.halted = False

    @property
    def ms(self) -> float:
        """Its time."""
        return self._clock(self._ticks)

    def run(self) -> None:
        """Go on to the next exit. A signal is none: a replay could not tell how many came.

        Raises:
            HostError: for a reason that no guest of a rehearsal has.
        """
        while (reason := self._vcpu.run()) == Exit.INTR:
            pass
        if reason == Exit.IO:
            port = self._vcpu.state.io.port
            self._ticks += port == TICK_PORT
            self.is_up |= port == UP_PORT
        elif reason == Exit.HLT:
            self.halted = True
        elif reason != Exit.MMIO:
            raise HostError(f"the guest stopped unexpectedly: {reason.name}")


class Guest(Protocol):
    """vCPUs, held to the migration's time.

    Attributes:
        how: in words.
        runs: how often a vCPU was let run.
    """

    how: str
    runs: int

    @property
    def ms(self) -> float:
        """How far it has come."""

    @property
    def halted(self) -> bool:
        """Whether no vCPU does anything any more."""

    def boot(self, limit_ms: float) -> None:
        """Run until it is up, or for so long."""

    def run_until(self, ms: float) -> None:
        """Let its time pass."""

    def step(self) -> None:
        """Go a little further, if it is not stopped."""

    def stop(self) -> None:
        """It does nothing more."""

    def go_on(self) -> None:
        """It may run again."""


class Stepped:
    """vCPUs that run one after the other, in the caller's thread: the same each time.

    Args:
        vcpus: the guest's.

    Attributes:
        runs: how often a vCPU was let run: with the seed, all that the guest's state depends on.
    """

    how = "one vCPU after the other, by computed time"

    def __init__(self, vcpus: Sequence[PacedVcpu]) -> None:
        self._vcpus = vcpus
        self._stopped = False
        self.runs = 0

    @property
    def ms(self) -> float:
        """How far it has come."""
        return min((it.ms for it in self._vcpus if not it.halted), default=0.0)

    @property
    def halted(self) -> bool:
        """Whether no vCPU does anything any more."""
        return all(it.halted for it in self._vcpus)

    def boot(self, limit_ms: float) -> None:
        """Run until it is up, or for so long."""
        while not any(it.is_up for it in self._vcpus) and 0 <= self.ms < limit_ms:
            if not self._run_first():
                return

    def run_until(self, ms: float) -> None:
        """Let its time pass."""
        while not self._stopped and self.ms < ms and self._run_first():
            pass

    def step(self) -> None:
        """Go a little further, if it is not stopped."""
        if not self._stopped:
            self._run_first()

    def replay(self, runs: int) -> None:
        """Do what another guest of the same scripts has done."""
        while self.runs < runs and self._run_first():
            pass

    def _run_first(self) -> bool:
        """Run the vCPU that is furthest behind; whether there is one."""
        running = [it for it in self._vcpus if not it.halted]
        if not running:
            return False
        min(running, key=lambda it: it.ms).run()
        self.runs += 1
        return True

    def stop(self) -> None:
        """It does nothing more."""
        self._stopped = True

    def go_on(self) -> None:
        """It may run again."""
        self._stopped = False


class Threaded:
    """vCPUs in threads of their own, a little ahead of the migration's time at most.

    Args:
        vcpus: the guest's.
    """

    how = "a thread for each vCPU, beside the migration"

    def __init__(self, vcpus: Sequence[PacedVcpu]) -> None:
        self._vcpus = vcpus
        self._changed = threading.Condition()
        self._until_ms = 0.0
        self._stopping = False
        self._error: BaseException | None = None
        self._threads: list[threading.Thread] = []
        self.runs = 0

    @property
    def ms(self) -> float:
        """How far it has come."""
        return min((it.ms for it in self._vcpus if not it.halted), default=0.0)

    @property
    def halted(self) -> bool:
        """Whether no vCPU does anything any more."""
        return all(it.halted for it in self._vcpus)

    def boot(self, limit_ms: float) -> None:
        """Run until it is up, or for so long."""
        first = Stepped(self._vcpus)
        first.boot(limit_ms)
        self.runs += first.runs
        self.go_on()

    def go_on(self) -> None:
        """It may run again."""
        self._stopping = False
        self._threads = [
            threading.Thread(target=self._main, args=(it,), name="guest", daemon=True)
            for it in self._vcpus
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """It does nothing more."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()
        self._raise()

    def run_until(self, ms: float) -> None:
        """Let its time pass; returns when it has."""
        if not self._threads:
            return
        with self._changed:
            self._until_ms = max(self._until_ms, ms + _AHEAD_MS)
            self._changed.notify_all()
            came = self._changed.wait_for(lambda: self._error or self._is_past(ms), _PATIENCE_S)
        self._raise()
        if not came:
            raise HostError(f"the guest has made no step for {_PATIENCE_S:g} s")

    def step(self) -> None:
        """It goes on by itself."""

    def _is_past(self, ms: float) -> bool:
        return all(it.halted or it.ms >= ms for it in self._vcpus)

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _main(self, vcpu: PacedVcpu) -> None:
        try:
            while self._may_run(vcpu):
                vcpu.run()
                with self._changed:
                    self.runs += 1
                    self._changed.notify_all()
        except BaseException as error:
            with self._changed:
                self._error = error
                self._changed.notify_all()

    def _may_run(self, vcpu: PacedVcpu) -> bool:
        """Wait for the time to pass; false when the vCPU is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or vcpu.ms < self._until_ms)
            return not self._stopping and not vcpu.halted
