"""A guest at work in one thread, its state read in another."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import numpy as np
import pytest

from fakekvm import guests, host_named
from fakekvm.fairlock import FairLock
from tests.fakekvm import raw
from tests.fakekvm.raw import PAGE, Buffer, FakeMachine, Guest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fakekvm.guests import Step

pytestmark = pytest.mark.alone

NPAGES = 600


class Running:
    """A vCPU that runs in a thread until the end of the block."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._thread = threading.Thread(target=self._run)
        self.results: list[raw.Result] = []

    def _run(self) -> None:
        self.results.append(self._guest.machine.ioctl(self._guest.vcpu, raw.RUN))

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_exc: object) -> None:
        self._guest.run_area[1] = 1
        self._thread.join(10)
        self._guest.run_area[1] = 0
        assert self.results == ["EINTR"]


def first_words(guest: Guest) -> np.ndarray:
    memory = np.frombuffer(bytes(guest.area.map), "<u8")
    return memory.reshape(-1, PAGE // 8)[:, 0].copy()


def random_writes(fake: FakeMachine, guest: Guest) -> None:
    steps = guests.random_writer(range(NPAGES), np.random.default_rng(1), chunk_pages=64)
    fake.kernel.load_guest(guest.vm, 0, steps)


@pytest.mark.parametrize("manual", [0, 1], ids=["destructive", "manual protect"])
def test_a_page_newer_than_its_copy_is_dirty_in_a_later_log(fake: FakeMachine, manual: int) -> None:
    """Copies dirty pages while the guest runs; at the end nothing may be missing from the copy."""
    guest = Guest(fake, npages=NPAGES, manual=manual)
    copied = first_words(guest)
    random_writes(fake, guest)

    def sync() -> int:
        out = Buffer(bytes(NPAGES // 8 + 5))
        assert fake.ioctl(guest.vm, raw.GET_DIRTY_LOG, raw.dirty_log(0, out.address)) == 0
        if manual:
            assert guest.clear_log(NPAGES, 0, out.bytes) == 0
        dirty = np.unpackbits(np.frombuffer(out.bytes, np.uint8), bitorder="little")
        at = np.flatnonzero(dirty[:NPAGES])
        copied[at] = first_words(guest)[at]
        return at.size

    with Running(guest):
        deadline = time.monotonic() + 0.3
        syncs = [sync() for _ in iter(lambda: time.monotonic() < deadline, False)]
    sync()
    assert (copied == first_words(guest)).all()
    assert sum(size > 0 for size in syncs) > 3


def test_a_ring_emptied_beside_a_running_guest_misses_nothing(fake: FakeMachine) -> None:
    guest = Guest(fake, npages=NPAGES, ring_bytes=PAGE * 4)
    copied = first_words(guest)
    fake.kernel.load_guest(guest.vm, 0, _bounded(300))
    assert guest.ring is not None
    ring = np.frombuffer(guest.ring, [("flags", "<u4"), ("slot", "<u4"), ("at", "<u8")])
    first = 0

    def sync() -> None:
        nonlocal first
        order = (first + np.arange(ring.size)) % ring.size
        dirty = (ring["flags"][order] & 1).astype(bool)
        order = order if dirty.all() else order[: int(dirty.argmin())]
        pages = ring["at"][order].astype(np.int64)
        guest.harvest(order.tolist())
        assert fake.ioctl(guest.vm, raw.RESET_RINGS) == order.size
        first += order.size
        copied[pages] = first_words(guest)[pages]

    reasons: list[int] = []
    thread = threading.Thread(target=lambda: reasons.extend(_run_to_the_end(guest)))
    thread.start()
    while thread.is_alive():
        sync()
    sync()
    assert (copied == first_words(guest)).all()
    assert reasons[-1] == 5


def _bounded(steps: int) -> Iterator[Step]:
    writer = guests.random_writer(range(NPAGES), np.random.default_rng(2), chunk_pages=64)
    return (next(writer) for _ in range(steps))


def _run_to_the_end(guest: Guest) -> Iterator[int]:
    """Reasons of the exits up to the halt; a full ring is emptied by the other thread."""
    while True:
        assert guest.machine.ioctl(guest.vcpu, raw.RUN) == 0
        yield guest.exit_reason()
        if guest.exit_reason() == 5:
            return


def test_an_encryption_state_read_beside_a_running_guest_is_of_whole_announcements() -> None:
    def flips() -> Iterator[Step]:
        private = False
        while True:
            yield guests.Flip(64, 128, private)
            private = not private

    with FakeMachine(host_named("sev-v2-2019")) as fake:
        guest = Guest(fake)
        fake.kernel.load_guest(guest.vm, 0, flips())
        out = Buffer(bytes(16))
        wanted = Buffer((64).to_bytes(8, "little") + (128).to_bytes(8, "little"))
        wanted = Buffer(wanted.bytes + out.address.to_bytes(8, "little"))
        seen: set[bytes] = set()
        with Running(guest):
            deadline = time.monotonic() + 10
            while len(seen) < 2 and time.monotonic() < deadline:
                for _ in range(20):
                    assert fake.ioctl(guest.vm, 0x4018AEC2, wanted) == 0
                    seen.add(out.bytes)
        assert seen == {bytes(16), b"\xff" * 16}


def test_a_busy_vcpu_does_not_keep_readers_waiting(fake: FakeMachine) -> None:
    guest = Guest(fake, npages=NPAGES)
    random_writes(fake, guest)
    waited = []
    with Running(guest):
        for _ in range(50):
            start = time.perf_counter()
            guest.get_log()
            waited.append(time.perf_counter() - start)
    assert sorted(waited)[25] < 0.02


def test_a_fair_lock_lets_a_waiter_in() -> None:
    lock = FairLock()
    entered = threading.Event()

    def wait() -> None:
        with lock:
            entered.set()

    thread = threading.Thread(target=wait)
    with lock:
        thread.start()
        assert not entered.wait(0.05), "it excludes"
    taken = 0
    while not entered.is_set():
        with lock:
            taken += 1
        assert taken < 1000, "the loop kept the lock from the waiter"
    thread.join()
