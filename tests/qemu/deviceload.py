"""A device that writes memory at a pace, as a program: SOCKET GPA PAGES BATCH PERIOD_MS.

SOCKET is QEMU's qtest. It writes BATCH pages in each period, in order, round and round, and each
time with something else.
"""

from __future__ import annotations

import itertools
import sys
import time
from contextlib import suppress
from pathlib import Path

from tests.qemu.places import PAGE
from tests.qemu.qtest import Qtest


def load(device: Qtest, gpa: int, pages: int, batch: int, period_s: float) -> None:
    """Until QEMU is gone."""
    due = time.monotonic()
    for number in itertools.count():
        first = number * batch % pages
        device.fill(gpa + first * PAGE, min(batch, pages - first), 1 + number % 255)
        due = max(due + period_s, time.monotonic() - 0.1)
        time.sleep(max(due - time.monotonic(), 0))


if __name__ == "__main__":
    with suppress(OSError), Qtest(Path(sys.argv[1])) as qtest:
        start, size, at_once = map(int, sys.argv[2:5])
        load(qtest, start, size, at_once, float(sys.argv[5]) / 1e3)
