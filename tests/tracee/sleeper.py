"""The program sleeper.c, running."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import NamedTuple, Self

from kvmenc import procfs
from kvmenc.tracee import Target

SOURCE = Path(__file__).with_name("sleeper.c")
SHORT_US = 300_000
SYS_getpid, SYS_gettid = 39, 186
SYS_nanosleep = 35

_libc = ctypes.CDLL(None, use_errno=True)


class Report(NamedTuple):
    """One sleep, as the thread itself saw it.

    Attributes:
        changes: registers, signal masks and the like that were not as before.
        cut_short: how often the sleep returned EINTR.
        result: what it returned in the end.
        took_us: how long it took.
        signals: handled by the thread since it started.
    """

    changes: int
    cut_short: int
    result: int
    took_us: int
    signals: int


class Sleeper:
    """A process with a thread that sleeps; a context manager that ends it."""

    def __init__(self, program: Path, kind: str) -> None:
        self._process = subprocess.Popen(
            [program, kind], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.pid = self._process.pid
        self.tid = int(self._line())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def wake(self) -> Report:
        """End the sleep, or let it end; its report."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return Report(*map(int, self._line().split()))

    def stop(self) -> None:
        """Returns when it is: a signal takes a moment to come."""
        self.kill(signal.SIGSTOP)
        while not all(procfs.state(tid) == "T" for tid in procfs.thread_ids(self.pid)):
            time.sleep(0.001)

    def signal_thread(self, number: int) -> None:
        assert _libc.tgkill(self.pid, self.tid, number) == 0

    def kill(self, number: int) -> None:
        os.kill(self.pid, number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)

    @property
    def target(self) -> Target:
        """It has no VM, so what looks for one is passed by."""
        return target_of(self.pid)


def target_of(pid: int) -> Target:
    return Target(
        pid, vm_fd=-1, kvm_fd=None, started_ticks=procfs.start_ticks(pid), avoid=frozenset()
    )


def left_in(pid: int) -> list[procfs.Mapping]:
    """What of ours is mapped in a process."""
    return [m for m in procfs.mappings(pid) if 0x6B76_0000_0000 <= m.start < 0x6B77_0000_0000]
