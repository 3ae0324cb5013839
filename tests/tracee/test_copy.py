"""Bytes between processes: all of them or an error."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
from typing import TYPE_CHECKING

import numpy as np
import pytest

from kvmenc.tracee import Copy, Injector, Span
from kvmenc.tracee.copy import is_mapped, read_bytes, write_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.tracee.sleeper import Sleeper

PAGE = mmap.PAGESIZE


def test_more_spans_than_the_kernel_takes_at_once_are_all_copied(
    start: Callable[[str], Sleeper],
) -> None:
    sleeper = start("futex")
    count = 2500
    rng = np.random.default_rng(1)
    sent, back = rng.integers(0, 256, 3 * count, np.uint8), np.zeros(3 * count, np.uint8)
    with Injector(sleeper.target) as injector:
        there = injector.reserve(count * 8)

        def spans(array: np.ndarray) -> list[Span]:
            here = array.ctypes.data
            return [Span(here + 3 * i, there + 8 * i, 3) for i in range(count)]

        Copy(sleeper.pid, spans(sent)).send()
        Copy(sleeper.pid, spans(back)).fetch()
        assert back.tobytes() == sent.tobytes()
        assert read_bytes(sleeper.pid, there + 8, 3) == sent[3:6].tobytes()


def test_a_span_that_ends_in_unmapped_memory_is_an_error(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    with Injector(sleeper.target) as injector:
        end = injector.reserve(PAGE) + PAGE
        write_bytes(sleeper.pid, end - 8, bytes(8))
        with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
            write_bytes(sleeper.pid, end - 8, bytes(9))
        with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
            read_bytes(sleeper.pid, end - 8, 9)
        assert is_mapped(sleeper.pid, end - 1)
        assert not is_mapped(sleeper.pid, end)


def test_a_process_that_is_gone_is_an_error(start: Callable[[str], Sleeper]) -> None:
    sleeper = start("futex")
    address = ctypes.addressof(ctypes.c_uint64())
    sleeper.end()
    with pytest.raises(ProcessLookupError):
        is_mapped(sleeper.pid, address)


def test_no_spans_are_no_call() -> None:
    Copy(-1, []).fetch()
