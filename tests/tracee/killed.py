"""Looks into a process again and again, and is killed each time at a random instant.

Usage: python -m tests.tracee.killed PID TIMES SEED. Each one is a fork, so that it is at once where
it matters. Prints how often something was left in the process.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

from kvmenc.tracee import Injector, SystemCall
from tests.tracee.sleeper import SYS_getpid, left_in, target_of

LONGEST_S = 0.05


def look_into(pid: int) -> None:
    """Until killed."""
    calls = [SystemCall(SYS_getpid)] * 5
    while True:
        with Injector(target_of(pid)) as injector:
            for _ in range(50):
                injector.run(calls)
            injector.reserve(1 << 20)
            injector.run(calls)


def main() -> None:
    pid, times, seed = map(int, sys.argv[1:])
    rng = random.Random(seed)
    left = 0
    for _ in range(times):
        child = os.fork()
        if child == 0:
            look_into(pid)
        time.sleep(rng.uniform(0, LONGEST_S))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit("it ended by itself")
        left += bool(left_in(pid))
    print(left)


if __name__ == "__main__":
    main()
