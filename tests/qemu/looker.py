"""Looks at a QEMU's dirty log at a pace, while it is told to: a program for the tests.

Its input is ``Wishes`` as JSON in the first line, then any number of lines ``go`` and ``rest``;
when that ends it prints the ``Looks`` as JSON.
"""

from __future__ import annotations

import select
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from kvmenc.backend.tracee import TraceeBackend
from kvmenc.dirtysource import PeekSource
from kvmenc.errors import SlotNotLogged
from kvmenc.memory.slots import MemSlot
from kvmenc.tracee import Injector, Target
from tests.qemu.process import FIRST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.qemu.machine import Machine


class Wishes(msgspec.Struct):
    """What to do.

    Attributes:
        pid: of QEMU.
        avoid: its vCPU threads.
        slots: whose dirty logs are looked at.
        period_s: from one look to the next; 0: as fast as it goes.
    """

    pid: int
    avoid: list[int]
    slots: list[MemSlot]
    period_s: float


class Looks(msgspec.Struct):
    """What was done.

    Attributes:
        stop_us: how long QEMU's thread stood still, for each look.
        look_us: how long a look took altogether.
    """

    stop_us: list[float]
    look_us: list[float]


class Looker:
    """The program, from outside.

    Attributes:
        looks: what it did, once it has ended.
    """

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program
        self.looks = Looks([], [])

    def say(self, line: str) -> None:
        assert self._program.stdin
        print(line, file=self._program.stdin, flush=True)

    def await_word(self) -> None:
        """Wait until it is attached."""
        assert self._program.stdout
        assert self._program.stdout.readline() == "attached\n"

    def end(self) -> None:
        output, _ = self._program.communicate(timeout=30)
        self.looks = msgspec.json.decode(output, type=Looks)


@contextmanager
def looker(qemu: Machine, slots: list[MemSlot], period_s: float = 0) -> Iterator[Looker]:
    """One that is attached and rests."""
    command = [*FIRST, sys.executable, "-m", "tests.qemu.looker"]
    wishes = Wishes(qemu.pid, qemu.vcpu_tids, slots, period_s)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as program:
        try:
            one = Looker(program)
            one.say(msgspec.json.encode(wishes).decode())
            one.await_word()
            yield one
            one.end()
        finally:
            program.kill()


def main() -> None:
    wishes = msgspec.json.decode(sys.stdin.readline(), type=Wishes)
    with Injector(Target.of(wishes.pid, wishes.avoid)) as injector:
        source = PeekSource(TraceeBackend(injector, wishes.slots), injector.target.vm_fd)
        print("attached", flush=True)
        look_us = look_until_told(source, wishes)
    print(msgspec.json.encode(Looks(injector.stop_us, look_us)).decode())


def look_until_told(source: PeekSource, wishes: Wishes) -> list[float]:
    look_us: list[float] = []
    going = False
    next_s = 0.0
    while True:
        patience_s = max(0.0, next_s - time.monotonic()) if going else None
        if select.select([sys.stdin], [], [], patience_s)[0]:
            line = sys.stdin.readline()
            if not line:
                return look_us
            going = line == "go\n"
            next_s = time.monotonic()
        else:
            look_us += look(source, wishes.slots)
            next_s += wishes.period_s


def look(source: PeekSource, slots: list[MemSlot]) -> list[float]:
    """How long it took, in us; nothing where QEMU has switched the log off."""
    started_s = time.perf_counter()
    try:
        for _ in source.read(slots):
            pass
    except SlotNotLogged:
        return []
    return [(time.perf_counter() - started_s) * 1e6]


if __name__ == "__main__":
    main()
