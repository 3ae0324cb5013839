"""What the handles and the command line add to what they stand on."""

from __future__ import annotations

import ctypes
import os
import statistics
import subprocess
import sys
import time
import timeit
from typing import TYPE_CHECKING

import pytest

import fakekvm
from kvmenc import uapi
from kvmenc.backend import LocalBackend
from kvmenc.backend.fake import FakeBackend
from kvmenc.guest.scratch import ScratchVm
from tests.support import need_kvm

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.bench

CALLS = 5000
ROUNDS = 15


def us_per_call(call: Callable[[], object]) -> float:
    return timeit.timeit(call, number=CALLS) / CALLS * 1e6


def compare(name: str, bare: Callable[[], object], ours: Callable[[], object]) -> float:
    """Median of what ours costs more than bare, in us, over alternating rounds."""
    pairs = [(us_per_call(bare), us_per_call(ours)) for _ in range(ROUNDS)]
    bare_us, ours_us = (statistics.median(side) for side in zip(*pairs, strict=True))
    more_us = statistics.median(b - a for a, b in pairs)
    print(f"\n{name}: bare {bare_us:.2f} us, ours {ours_us:.2f} us: {more_us:.2f} us more")
    return more_us


def test_get_dirty_log_through_the_handles_costs_at_most_5_us_more() -> None:
    need_kvm()
    with ScratchVm(LocalBackend()) as machine:
        slot = machine.layout.slots[2]
        bitmap = bytearray(4096)
        arg = uapi.kvm_dirty_log(slot=slot.key)
        arg.dirty_bitmap = ctypes.addressof((ctypes.c_char * len(bitmap)).from_buffer(bitmap))
        ioctl = ctypes.CDLL(None).ioctl
        ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)
        fd, request, address = machine.vm.fd, int(uapi.KVM_GET_DIRTY_LOG), ctypes.addressof(arg)
        more_us = compare(
            f"KVM_GET_DIRTY_LOG, {slot.npages} pages",
            lambda: ioctl(fd, request, address),
            lambda: machine.vm.dirty_log(slot),
        )
    assert more_us <= 5


def test_get_dirty_log_of_the_fake() -> None:
    with ScratchVm(FakeBackend(fakekvm.Host())) as machine:
        slot = machine.layout.slots[2]
        fake_us = statistics.median(
            us_per_call(lambda: machine.vm.dirty_log(slot)) for _ in range(5)
        )
    print(f"\nKVM_GET_DIRTY_LOG on fakekvm, {slot.npages} pages: {fake_us:.1f} us")
    assert fake_us < 100


@pytest.mark.parametrize("arguments", [["--help"], ["plan", "--help"], ["demo", "--help"]])
def test_help_comes_within_150_ms(arguments: list[str]) -> None:
    command = [sys.executable, "-c", "from kvmenc.cli import main; main()", *arguments]
    times_ms = []
    for _ in range(11):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=os.environ)
        times_ms.append((time.perf_counter() - start) * 1e3)
    bare_ms = []
    for _ in range(11):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", ""], check=True)
        bare_ms.append((time.perf_counter() - start) * 1e3)
    ours, bare = statistics.median(times_ms), statistics.median(bare_ms)
    print(f"\nkvmenc {' '.join(arguments)}: {ours:.0f} ms (python alone {bare:.0f} ms)")
    assert ours < 150
