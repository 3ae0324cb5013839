"""The dirty ring's consumer against a producer that does what the kernel does."""

from __future__ import annotations

import mmap
import signal
import struct
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fakekvm import Host
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.errors import HostError
from kvmenc.kvm import KvmSystem
from kvmenc.ring import DirtyRing

ENTRIES = 256
DIRTY, RESET = 1, 2


class Producer:
    """The kernel's side: pushes at the tail, takes back harvested entries from the head."""

    def __init__(self) -> None:
        self.area = mmap.mmap(-1, ENTRIES * 16)
        self.tail = self.head = 0
        self.most = ENTRIES  # a sound kernel keeps some in reserve
        self.unseen: deque[tuple[int, int]] = deque()

    def push(self, slot: int, page: int) -> bool:
        if self.tail - self.head == self.most:
            return False
        struct.pack_into("<IIQ", self.area, self.tail % ENTRIES * 16, DIRTY, slot, page)
        self.tail += 1
        self.unseen.append((slot, page))
        return True

    def reset(self) -> int:
        count = 0
        while self.head < self.tail:
            at = self.head % ENTRIES * 16
            flags, slot, page = struct.unpack_from("<IIQ", self.area, at)
            if not flags & RESET:
                break
            struct.pack_into("<IIQ", self.area, at, 0, slot, page)
            self.head += 1
            count += 1
        return count


entry = st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**63))
step = st.one_of(st.lists(entry, max_size=300).map(tuple), st.just("harvest"), st.just("reset"))


def test_a_ring_that_overflowed_is_not_believed() -> None:
    producer = Producer()
    ring = DirtyRing(producer.area)
    for page in range(ENTRIES):
        producer.push(0, page)
    with pytest.raises(HostError, match="overflowed its 256 entries: pages are lost"):
        ring.harvest()
    ring.close()
    producer.area.close()


@given(st.lists(step, max_size=30))
def test_every_entry_is_harvested_once_and_in_order(
    steps: list[str | tuple[tuple[int, int], ...]],
) -> None:
    producer = Producer()
    producer.most = ENTRIES - 64
    ring = DirtyRing(producer.area)
    harvested = 0
    for what in steps:
        if what == "harvest":
            slots, pages = ring.harvest()
            found = list(zip(slots.tolist(), pages.tolist(), strict=True))
            assert found == [producer.unseen.popleft() for _ in found]
            assert not producer.unseen, "all that was ready is taken"
            harvested += len(found)
        elif what == "reset":
            harvested -= producer.reset()
            assert harvested == 0, "what was harvested, and only that, is taken back"
        elif isinstance(what, tuple):
            for slot, page in what:
                producer.push(slot, page)
    ring.close()
    producer.area.close()


class Looking(FakeBackend):
    """Notes which signals could come while a ring is reset."""

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        if request == uapi.KVM_RESET_DIRTY_RINGS:
            self.blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return super().ioctl(fd, request, arg)


def test_no_signal_comes_while_a_ring_is_reset() -> None:
    """Kernels since v6.17 stop then, and forget pages that they have taken back."""
    backend = Looking(Host())
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with KvmSystem.open(backend) as system, system.create_vm() as vm:
        vm.enable_dirty_ring(4096)
        assert vm.reset_dirty_rings() == 0
    assert backend.blocked >= signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
