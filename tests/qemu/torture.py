"""Looks into a QEMU again and again, and dies of SIGKILL each time: a program for the tests.

Reads ``Wishes`` as JSON, prints an ``Outcome`` as JSON. Each victim is forked from a parent that
has imported all there is, so that none of them dies while Python still starts.
"""

from __future__ import annotations

import mmap
import os
import random
import signal
import sys
import time
import traceback
from collections import Counter
from functools import wraps
from typing import TYPE_CHECKING, ParamSpec, TypeVar

import msgspec

from kvmenc import procfs
from kvmenc.backend.tracee import TraceeBackend
from kvmenc.dirtysource import PeekSource
from kvmenc.errors import HostError
from kvmenc.memory.slots import MemSlot
from kvmenc.tracee import Injector, Target, ptrace

if TYPE_CHECKING:
    from collections.abc import Callable

#: What a victim does, round and round; a Target is looked for "before".
STEPS = ("start", "before", "attach", "look", "detach", "after")
STEPS_WITH_REQUESTS = ("attach", "look", "detach")
#: "cont" is for signals only, the others are the recorder's: no look makes them.
_NOT_OF_A_LOOK = {"cont", "event_message", "listen", "to_syscall_exit", "wait_for_any"}
#: Each ptrace request of a look, as it is begun and when it is over.
REQUESTS = tuple(
    f"{when} {name}"
    for name in ptrace.__all__
    for when in ("in", "after")
    if name not in _NOT_OF_A_LOOK
)
NO_REQUEST = "no request"

_LOOKS = 10  # in a round
_ROUNDS = 1.5  # that a victim lives at most, if it is to die at a random moment
_PATIENCE_S = 5.0  # with one that is to die at a request
_GLANCE_S = 0.5e-3  # from one look whether it is dead to the next

P = ParamSpec("P")
R = TypeVar("R")


class Wishes(msgspec.Struct):
    """What to do.

    Attributes:
        pid: of QEMU.
        avoid: its vCPU threads.
        slots: whose dirty logs are looked at.
        kills: how many times to die.
        seconds: after which it ends in any case: the dirty log is not on for ever.
        seed: of the moments.
    """

    pid: int
    avoid: list[int]
    slots: list[MemSlot]
    kills: int
    seconds: float
    seed: int


class Outcome(msgspec.Struct):
    """What came of it.

    Attributes:
        kills: how many times it died; fewer than wished if the time was over, or QEMU died of one.
        steps: how often it died in each step.
        requests: how often during and how often after each ptrace request.
    """

    kills: int
    steps: dict[str, int]
    requests: dict[str, int]


class Diary:
    """Some bytes that a victim shares with its parent and that outlive it.

    It keeps the step that the victim was in and its last ptrace request there, and its parent may
    tell it to die at one.
    """

    def __init__(self) -> None:
        self._bytes = mmap.mmap(-1, mmap.PAGESIZE)

    def begin(self) -> None:
        """Clear it."""
        self._bytes[:5] = bytes(5)

    def doom(self, step: str, request: str, times: int) -> None:
        """The victim is to die at a request, when it comes for so many times in a step."""
        self._bytes[2:5] = bytes((1 + REQUESTS.index(request), times, STEPS.index(step)))

    def step(self, name: str) -> None:
        self._bytes[0] = STEPS.index(name)

    def _request(self, name: str) -> None:
        number = 1 + REQUESTS.index(name)
        self._bytes[1] = number
        if (self._bytes[2], self._bytes[4]) == (number, self._bytes[0]):
            self._bytes[3] -= 1
            if not self._bytes[3]:
                os.kill(os.getpid(), signal.SIGKILL)

    def told(self, name: str, request: Callable[P, R]) -> Callable[P, R]:
        """The request, written down before and after it is made."""

        @wraps(request)
        def told(*args: P.args, **kwargs: P.kwargs) -> R:
            self._request(f"in {name}")
            try:
                return request(*args, **kwargs)
            finally:
                self._request(f"after {name}")

        return told

    def end(self) -> tuple[str, str]:
        """The step and the last request."""
        step, request = self._bytes[:2]
        return STEPS[step], REQUESTS[request - 1] if request else NO_REQUEST


def look_for_ever(wishes: Wishes, diary: Diary) -> None:
    while True:
        diary.step("before")
        target = Target.of(wishes.pid, wishes.avoid)
        diary.step("attach")
        with Injector(target) as injector:
            look(wishes, injector, diary)
            diary.step("detach")
        diary.step("after")


def look(wishes: Wishes, injector: Injector, diary: Diary) -> None:
    source = PeekSource(TraceeBackend(injector, wishes.slots), injector.target.vm_fd)
    for _ in range(_LOOKS):
        diary.step("look")
        for _ in source.read(wishes.slots):
            pass


def die(wishes: Wishes, diary: Diary, life_s: float) -> None:
    """A victim; killed when it has lived that long, if it is not dead yet."""
    child = os.fork()
    if not child:
        try:
            look_for_ever(wishes, diary)
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    end_s = time.monotonic() + life_s
    dead, status = 0, 0
    while not dead and time.monotonic() < end_s:
        time.sleep(min(_GLANCE_S, life_s))
        dead, status = os.waitpid(child, os.WNOHANG)
    if not dead:
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "a victim ended by itself"


def time_round(wishes: Wishes) -> float:
    """How long a round takes, undisturbed; it also has everything imported."""
    started = time.perf_counter()
    with Injector(Target.of(wishes.pid, wishes.avoid)) as injector:
        look(wishes, injector, Diary())
    return time.perf_counter() - started


def is_alive(pid: int) -> bool:
    try:
        return procfs.state(pid) not in {"Z", "X"}
    except HostError:
        return False


def torture(wishes: Wishes) -> Outcome:
    moments = random.Random(wishes.seed)
    time_round(wishes)
    round_s = time_round(wishes)
    diary = Diary()
    for name in {request.split()[1] for request in REQUESTS}:
        setattr(ptrace, name, diary.told(name, getattr(ptrace, name)))
    steps, requests = Counter[str](), Counter[str]()
    outcome = Outcome(0, steps, requests)
    end_s = time.monotonic() + wishes.seconds
    while outcome.kills < wishes.kills and time.monotonic() < end_s and is_alive(wishes.pid):
        diary.begin()
        if outcome.kills % 2:
            die(wishes, diary, moments.uniform(0, round_s * _ROUNDS))
        else:
            doom(diary, outcome.kills // 2, moments)
            die(wishes, diary, _PATIENCE_S)
        step, request = diary.end()
        outcome.kills += 1
        steps[step] += 1
        requests[request] += 1
    return outcome


def doom(diary: Diary, number: int, moments: random.Random) -> None:
    """Each request in turn, each time in the next of the steps in which there are some."""
    step = STEPS_WITH_REQUESTS[number % len(STEPS_WITH_REQUESTS)]
    request = REQUESTS[number % len(REQUESTS)]
    diary.doom(step, request, moments.randint(1, _LOOKS) if step == "look" else 1)


if __name__ == "__main__":
    wanted = msgspec.json.decode(sys.stdin.buffer.read(), type=Wishes)
    sys.stdout.buffer.write(msgspec.json.encode(torture(wanted)))
