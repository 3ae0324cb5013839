"""The scratch memory, the lock, and what is left behind."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from kvmenc import procfs, uapi
from kvmenc.errors import HostError
from kvmenc.tracee import Injector, Span, SystemCall
from kvmenc.tracee.copy import read_bytes, write_bytes
from kvmenc.tracee.scratch import MAX_CALLS
from tests.tracee.sleeper import SYS_getpid, SYS_nanosleep, left_in

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.tracee.sleeper import Sleeper

PAGE = mmap.PAGESIZE
GETPID = SystemCall(SYS_getpid)
ENTER = """
import sys
from kvmenc.tracee import Injector
from tests.tracee.sleeper import target_of
with Injector(target_of(int(sys.argv[1]))):
    print("in", flush=True)
    sys.stdin.read()
"""


def anonymous_call(address: int, nbytes: int) -> SystemCall:
    flags = uapi.MAP_PRIVATE | uapi.MAP_ANONYMOUS | uapi.MAP_FIXED_NOREPLACE
    access = uapi.PROT_READ | uapi.PROT_WRITE
    return SystemCall(uapi.SYS_mmap, (address, nbytes, access, flags, -1, 0))


def test_only_the_scratch_memory_is_added_and_that_is_taken_away(
    start: Callable[[str], Sleeper],
) -> None:
    sleeper = start("futex")
    before = procfs.mappings(sleeper.pid)
    with Injector(sleeper.target):
        added = [m for m in procfs.mappings(sleeper.pid) if m not in before]
        assert [(m.perms, m.path, m.end - m.start) for m in added] == [("rw-p", "", PAGE)]
        assert added == left_in(sleeper.pid)
    assert procfs.mappings(sleeper.pid) == before


def test_scratch_memory_grows_to_what_is_asked_for(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    data, back = os.urandom(3 << 20), ctypes.create_string_buffer(3 << 20)
    with Injector(sleeper.target) as injector:
        for nbytes in (1, PAGE, PAGE + 1, len(data)):
            address = injector.reserve(nbytes)
            assert injector.reserve(nbytes) == address
            (mapping,) = left_in(sleeper.pid)
            assert mapping.start < address
            assert address + nbytes <= mapping.end
        address = injector.reserve(len(data))
        write_bytes(sleeper.pid, address, data)
        assert injector.run([GETPID]) == [sleeper.pid]
        injector.copy([Span(ctypes.addressof(back), address, len(data))]).fetch()
    assert back.raw == data


def test_a_second_kvmenc_is_locked_out_and_told_by_whom(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    arguments = [sys.executable, "-c", ENTER, str(sleeper.pid)]
    with subprocess.Popen(
        arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout is not None
        assert first.stdin is not None
        assert first.stdout.readline() == "in\n"
        message = rf"another kvmenc \(process {first.pid}\) looks at process {sleeper.pid}"
        with pytest.raises(HostError, match=message):
            Injector(sleeper.target).__enter__()
        assert len(left_in(sleeper.pid)) == 1
        first.stdin.close()
    with Injector(sleeper.target):
        pass


def test_what_a_killed_one_left_is_cleared_and_nothing_else(
    start: Callable[[str], Sleeper],
) -> None:
    """Left: with a header, and just mapped. Others': outside of the range, with other contents."""
    sleeper = start("futex")
    base = 0x6B76_0000_0000
    others = base - 16 * PAGE, base + 32 * PAGE
    left = base + 64 * PAGE, base + 128 * PAGE
    with Injector(sleeper.target) as injector:
        results = injector.run([anonymous_call(it, PAGE) for it in others + left])
        assert results == [*others, *left]
        own = [m.start for m in left_in(sleeper.pid) if m.start not in others + left]
        write_bytes(sleeper.pid, left[0], read_bytes(sleeper.pid, own[0], 8) + bytes(8))
        for address in others:
            write_bytes(sleeper.pid, address, b"precious")
        injector.__exit__(None, None, None)
    with Injector(sleeper.target):
        found = {m.start for m in procfs.mappings(sleeper.pid)}
        assert not found & set(left)
        assert set(others) <= found
    assert read_bytes(sleeper.pid, others[1], 8) == b"precious"


def run_for_a_second(sleeper: Sleeper) -> None:
    with Injector(sleeper.target) as injector:
        address = injector.reserve(PAGE)
        write_bytes(sleeper.pid, address, (1).to_bytes(8, "little") + bytes(8))
        injector.run([SystemCall(SYS_nanosleep, (address, 0)), GETPID])


def test_memory_that_a_call_may_still_write_to_is_not_cleared(
    start: Callable[[str], Sleeper], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread is still in a call when the one that asked for it has gone, and another comes."""
    sleeper = start("futex")
    monkeypatch.setattr("kvmenc.tracee.injector._PATIENCE_S", 0.1)
    monkeypatch.setattr("kvmenc.tracee.borrow._PATIENCE_S", 0.1)
    with pytest.raises(HostError, match="has not answered"):
        run_for_a_second(sleeper)
    assert len(left_in(sleeper.pid)) == 1
    with pytest.raises(HostError, match=f"thread {sleeper.tid} .* may still be on its way"):
        Injector(sleeper.target).__enter__()
    time.sleep(1)
    with Injector(sleeper.target) as injector:
        assert injector.run([GETPID]) == [sleeper.pid]
        assert len(left_in(sleeper.pid)) == 1
    assert not left_in(sleeper.pid)
    assert sleeper.wake()[:3] == (0, 0, 0)


def test_more_calls_than_fit_are_refused(start: Callable[[str], Sleeper]) -> None:
    with (
        Injector(start("futex").target) as injector,
        pytest.raises(ValueError, match="500 are the most"),
    ):
        injector.run([GETPID] * (MAX_CALLS + 1))


def test_more_memory_than_there_are_addresses_is_refused(start: Callable[[str], Sleeper]) -> None:
    with Injector(start("futex").target) as injector:
        with pytest.raises(HostError, match="too many"):
            injector.reserve(1 << 40)
        assert injector.run([GETPID])


def test_no_calls_are_no_stop(start: Callable[[str], Sleeper]) -> None:
    with Injector(start("futex").target) as injector:
        stops = len(injector.stop_us)
        assert injector.run([]) == []
        assert len(injector.stop_us) == stops


def test_an_injector_that_is_not_entered_says_so(start: Callable[[str], Sleeper]) -> None:
    with pytest.raises(HostError, match="is not being looked at"):
        Injector(start("futex").target).reserve(1)


def run_for_ever(sleeper: Sleeper) -> None:
    with Injector(sleeper.target) as injector:
        while True:
            injector.run([GETPID])


def test_ctrl_c_leaves_nothing_behind(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    for delay_s in (0.001, 0.01, 0.05):
        main = threading.main_thread().ident
        assert main is not None
        interrupt = threading.Timer(delay_s, signal.pthread_kill, (main, signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - on a busy machine it comes at once
            interrupt.start()
            run_for_ever(sleeper)
        interrupt.join()
        assert not left_in(sleeper.pid)
    assert sleeper.wake()[:3] == (0, 0, 0)
