"""A kvmenc killed at any instant leaves its target unharmed, and what it leaves is cleared away."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from kvmenc.tracee import Injector, SystemCall
from tests.tracee.sleeper import SYS_getpid, left_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.tracee.sleeper import Sleeper

TIMES = 150


@pytest.mark.parametrize("kind", ["futex", "ppoll"])
def test_sigkill_at_any_instant_harms_nothing(start: Callable[[str], Sleeper], kind: str) -> None:
    sleeper = start(kind)
    arguments = [sys.executable, "-m", "tests.tracee.killed", str(sleeper.pid), str(TIMES), "1"]
    killed = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=100)
    assert killed.returncode == 0, killed.stderr
    assert int(killed.stdout) > TIMES // 10, "hardly one was killed within its time"
    with Injector(sleeper.target) as injector:
        assert len(left_in(sleeper.pid)) == 1
        assert injector.run([SystemCall(SYS_getpid)]) == [sleeper.pid]
    assert not left_in(sleeper.pid)
    report = sleeper.wake()
    assert (report.changes, report.cut_short) == (0, 0)
    assert sleeper.wake().changes == 0
