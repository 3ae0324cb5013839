"""A borrowed thread is as it was: its registers, its signals, and the sleep it was taken from."""

from __future__ import annotations

import errno
import random
import signal
import threading
import time
from typing import TYPE_CHECKING

import pytest

from kvmenc import procfs
from kvmenc.errors import HostError
from kvmenc.tracee import Injector, SystemCall
from kvmenc.tracee.threads import sleepers
from tests.tracee.sleeper import SHORT_US, SYS_getpid, SYS_gettid, left_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.tracee.sleeper import Sleeper

pytestmark = pytest.mark.alone

GETPID = SystemCall(SYS_getpid)
STOPS = 500

# Each kind of sleep that is interrupted, and what it returns in the end.
UNTIL_ENDED = {"futex": 0, "futex-bitset": 0, "ppoll": 1, "poll": 1}
BY_ITSELF = {"futex-until": -errno.ETIMEDOUT, "ppoll-for": 0, "clock-nanosleep-until": 0}
TELLS_WHAT_REMAINS = ("nanosleep", "clock-nanosleep")
# Interrupting these would show, or a signal could be lost in them.
LEFT_ALONE = ("futex-for", "ppoll-mask", "poll-for", "nanosleep-blind", "read", "epoll", "handler")


@pytest.mark.parametrize("kind", UNTIL_ENDED)
def test_a_sleep_goes_on_with_every_register_as_it_was(
    start: Callable[[str], Sleeper], kind: str
) -> None:
    sleeper = start(kind)
    with Injector(sleeper.target) as injector:
        for _ in range(4):
            for _ in range(STOPS // 4):
                assert injector.run([GETPID]) == [sleeper.pid]
            report = sleeper.wake()
            assert (report.changes, report.cut_short, report.result) == (0, 0, UNTIL_ENDED[kind])


@pytest.mark.parametrize("kind", BY_ITSELF)
def test_a_sleep_with_an_end_ends_when_it_should(
    start: Callable[[str], Sleeper], kind: str
) -> None:
    sleeper = start(kind)
    stops = 0
    with Injector(sleeper.target) as injector:
        for _ in range(3):
            until = time.monotonic() + SHORT_US / 1e6
            while time.monotonic() < until:
                injector.run([GETPID])
                stops += 1
            report = sleeper.wake()
            assert (report.changes, report.cut_short, report.result) == (0, 0, BY_ITSELF[kind])
            # Begun anew at its last stop it would take twice as long.
            assert SHORT_US <= report.took_us < 1.8 * SHORT_US
    assert stops > 100


@pytest.mark.parametrize("kind", TELLS_WHAT_REMAINS)
def test_a_sleep_that_tells_what_remains_is_as_long_as_asked(
    start: Callable[[str], Sleeper], kind: str
) -> None:
    sleeper = start(kind)
    cut_short = 0
    with Injector(sleeper.target) as injector:
        for _ in range(3):
            for _ in range(50):
                injector.run([GETPID])
            report = sleeper.wake()
            assert (report.changes, report.result) == (0, 0)
            assert SHORT_US <= report.took_us < 1.3 * SHORT_US
            cut_short += report.cut_short
    assert cut_short > 0


@pytest.mark.parametrize("kind", LEFT_ALONE)
def test_a_thread_that_would_notice_is_never_stopped(
    start: Callable[[str], Sleeper], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvmenc.tracee.borrow._PATIENCE_S", 0.3)
    sleeper = start(kind)
    assert not sleepers(sleeper.pid, ())
    with pytest.raises(HostError, match=r"no thread of process \d+ could be borrowed"):
        Injector(sleeper.target).__enter__()
    report = sleeper.wake()
    assert (report.changes, report.cut_short) == (0, 0)


def test_a_thread_to_be_avoided_is_never_stopped(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    while procfs.state(sleeper.tid) != "S":
        pass
    assert [it.tid for it in sleepers(sleeper.pid, ())] == [sleeper.tid]
    assert not sleepers(sleeper.pid, [sleeper.tid])


def test_many_calls_are_made_in_one_stop_in_order(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    calls = [SystemCall(SYS_gettid), GETPID, SystemCall(SYS_getpid + 10_000), *[GETPID] * 497]
    with Injector(sleeper.target) as injector:
        stops = len(injector.stop_us)
        results = injector.run(calls)
        assert len(injector.stop_us) == stops + 1
    assert results == [sleeper.tid, sleeper.pid, -errno.ENOSYS, *[sleeper.pid] * 497]
    assert sleeper.wake()[:3] == (0, 0, 0)


def test_every_signal_sent_meanwhile_arrives(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    with Injector(sleeper.target) as injector:
        for _ in range(STOPS):
            sleeper.signal_thread(signal.SIGRTMIN + 1)
            injector.run([GETPID])
            sleeper.signal_thread(signal.SIGRTMIN + 2)
    report = sleeper.wake()
    assert (report.changes, report.cut_short, report.result) == (0, 0, 0)
    assert report.signals == 2 * STOPS


def test_signals_to_the_process_reach_it_meanwhile(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("ppoll")
    with Injector(sleeper.target) as injector:
        for _ in range(STOPS // 5):
            sleeper.kill(signal.SIGRTMIN + 1)
            assert injector.run([GETPID]) == [sleeper.pid]
    assert sleeper.wake()[:3] == (0, 0, 1)


def test_a_stopped_process_is_told_and_goes_on_later(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    with Injector(sleeper.target) as injector:
        sleeper.stop()
        with pytest.raises(HostError, match=r"was stopped: continue it first"):
            injector.run([GETPID])
        sleeper.kill(signal.SIGCONT)
        assert injector.run([GETPID]) == [sleeper.pid]
    assert not left_in(sleeper.pid)
    assert sleeper.wake()[:3] == (0, 0, 0)


def test_a_process_that_ends_is_told_so(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    with Injector(sleeper.target) as injector:
        injector.run([GETPID])
        sleeper.end()
        with pytest.raises(HostError, match=rf"^process {sleeper.pid} has ended$"):
            injector.run([GETPID])


def test_a_process_may_end_at_any_instant(start: Callable[[str], Sleeper]) -> None:
    """A tracer that does not listen would keep a dead thread, and so the process, from going."""
    rng = random.Random(1)
    for _ in range(25):
        sleeper = start("futex")
        killer = threading.Timer(rng.uniform(0, 0.02), sleeper.kill, [signal.SIGKILL])
        with pytest.raises(HostError, match=rf"process {sleeper.pid}\b"):
            run_for_ever(sleeper, killer)
        killer.join()
        sleeper.end()


def run_for_ever(sleeper: Sleeper, then: threading.Timer) -> None:
    with Injector(sleeper.target) as injector:
        then.start()
        while True:
            injector.run([GETPID])


def test_stops_are_counted_and_timed(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    with Injector(sleeper.target) as injector:
        before = len(injector.stop_us)
        for _ in range(20):
            injector.run([GETPID])
        stops_us = injector.stop_us[before:]
    assert len(stops_us) == 20
    assert all(us > 0 for us in stops_us)
    assert min(stops_us) < 5_000
