"""A scratch guest whose writes are known: does this host's dirty log say exactly those?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from kvmenc.backend.kinds import seen
from kvmenc.errors import KvmencError
from kvmenc.guest.program import Program, Tick, WriteList, WriteRun
from kvmenc.guest.runner import GuestThread
from kvmenc.guest.scratch import HIGH_OFFSET, PAGE, ScratchVm
from kvmenc.kvm import Exit
from kvmenc.memory.words import bits_at, from_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from kvmenc.backend import Backend
    from kvmenc.memory.slots import MemSlot
    from kvmenc.memory.words import Pages, Words

__all__ = ["CHECKS", "RING_BURST", "Check", "self_test"]

_PROGRAM: Program = (
    WriteRun(0x100, 70),
    WriteList((0x9F, 0x8, 0x11FE4, 0x10003, 0x8)),
    Tick(),
)
# By slot: which of its pages that program writes.
_WRITTEN = {
    0: np.array([0x8, 0x9F]),
    2: np.arange(70),
    3: np.array([3, 0x1FE4]),
}
_NOTHING = np.empty(0, np.int64)

RING_BURST = "dirty ring, filled in one burst"

_BURST_PAGES = 1000
_RUNNING_PAGES = 2000
_SMALL_RING_BYTES = 4096  # 256 entries


class Check(msgspec.Struct, frozen=True):
    """One thing that was tried.

    Attributes:
        name: what.
        result: ``passed`` or ``failed``.
        detail: what was seen.
    """

    name: str
    result: str
    detail: str


def self_test(backend: Backend) -> Iterator[Check]:
    """Run the checks one by one; a check that raises has failed, and the next goes on."""
    for name, check in _CHECKS.items():
        try:
            yield Check(name, "passed", check(backend))
        except (KvmencError, _Mismatch) as error:
            yield Check(name, "failed", str(error))


class _Mismatch(Exception):
    """The host's dirty log is not what the guest wrote."""


def _exact(backend: Backend, *, manual_protect: bool = False, ring_bytes: int = 0) -> str:
    with ScratchVm(backend, manual_protect=manual_protect, ring_bytes=ring_bytes) as machine:
        machine.load(_PROGRAM)
        for _ in range(2):  # pages written again must be dirty again
            _run_to_tick(machine)
            _compare(_dirty(machine), _WRITTEN)
        _compare(_dirty(machine), {})
    return f"{sum(map(len, _WRITTEN.values()))} pages written twice, all found, no other"


def _run_to_tick(machine: ScratchVm) -> None:
    reason = machine.vcpu.run(timeout_s=10)
    if reason != Exit.IO:
        msg = f"the guest did not reach its tick: {reason.name}"
        raise _Mismatch(msg)


def _dirty(machine: ScratchVm) -> Iterator[tuple[MemSlot, Words]]:
    return machine.dirty_source().read(machine.layout.logged_slots)


def _compare(found: Iterator[tuple[MemSlot, Words]], written: dict[int, Pages]) -> None:
    for slot, words in found:
        expected = from_pages(written.get(slot.slot_id, _NOTHING), slot.npages)
        if (words != expected).any():
            msg = f"slot {slot.slot_id}: the log is not what the guest wrote"
            raise _Mismatch(msg)


def _peek(backend: Backend) -> str:
    with ScratchVm(backend, manual_protect=True) as machine:
        machine.load(_PROGRAM)
        _run_to_tick(machine)
        slot = machine.layout.slots[2]
        first = machine.vm.dirty_log(slot).copy()
        if not first.any() or (machine.vm.dirty_log(slot) != first).any():
            msg = "a second reading differs from the first"
            raise _Mismatch(msg)
    return "two readings alike"


def _burst(backend: Backend) -> str:
    """More writes than the ring holds: the vCPU must stop in time, each time."""
    with ScratchVm(backend, ring_bytes=_SMALL_RING_BYTES) as machine:
        machine.load((WriteRun(0x100, _BURST_PAGES), Tick()))
        source = machine.dirty_ring_source()
        stops = 0
        while machine.vcpu.run(timeout_s=10) == Exit.DIRTY_RING_FULL:
            source.collect()
            stops += 1
        _compare(source.read(machine.layout.logged_slots), {2: np.arange(_BURST_PAGES)})
    return f"{_BURST_PAGES} pages through 256 entries, {stops} stops"


def _running(backend: Backend) -> str:
    """Copy what is dirty while the guest goes on writing; a copy that is stale lost its bit."""
    passes = 3
    with ScratchVm(backend) as machine:
        machine.load((WriteRun(0x100, _RUNNING_PAGES), Tick()))
        copied = _contents(machine)
        readings = 0
        with GuestThread(machine.vcpu) as guest:
            while _ticks(backend, guest) < passes:
                guest.wait(0)  # raises what went wrong in the guest, rather than wait for ever
                _copy_dirty(machine, copied)
                readings += 1
        _copy_dirty(machine, copied)
        if (copied != _contents(machine)).any():
            msg = f"a page was written and not logged, within {readings} readings"
            raise _Mismatch(msg)
    passed = _ticks(backend, guest)
    return f"{readings} readings in {passed} passes of the guest, nothing lost"


def _ticks(backend: Backend, guest: GuestThread) -> int:
    """How far the guest is: chance, so a recording keeps it."""
    return int(seen(backend, "the guest's ticks", lambda: guest.ticks))


def _copy_dirty(machine: ScratchVm, copied: NDArray[np.uint32]) -> None:
    slot = machine.layout.slots[2]
    written = np.arange(_RUNNING_PAGES)
    read = machine.dirty_source().read([slot])
    (dirty,) = [bits_at(words, written) for _slot, words in read]
    copied[dirty] = _contents(machine)[dirty]  # contents last: after the log was cleared


def _contents(machine: ScratchVm) -> NDArray[np.uint32]:
    """The first word of each page that the guest writes."""
    words = np.frombuffer(machine.ram.area, dtype="<u4").reshape(-1, PAGE // 4)
    return words[HIGH_OFFSET : HIGH_OFFSET + _RUNNING_PAGES, 0].copy()


_CHECKS: dict[str, Callable[[Backend], str]] = {
    "dirty log": lambda backend: _exact(backend, manual_protect=False),
    "dirty log, manual protect": lambda backend: _exact(backend, manual_protect=True),
    "reading leaves the bits": _peek,
    "dirty ring": lambda backend: _exact(backend, ring_bytes=65536),
    RING_BURST: _burst,
    "syncs beside a running guest": _running,
}
CHECKS = len(_CHECKS)
