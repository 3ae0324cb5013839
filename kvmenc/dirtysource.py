"""Where dirty bits come from: a VM's dirty log, its vCPUs' dirty rings, another process's log.

All hold the writes of vCPUs only: what devices of the VMM write never enters them (design law 5).
"""

from __future__ import annotations

import ctypes
import errno
import threading
from typing import TYPE_CHECKING

import numpy as np

from kvmenc import uapi
from kvmenc.backend.tracee import Request
from kvmenc.call import call, named_error
from kvmenc.errors import HostError, NotSupported
from kvmenc.memory.words import Words, words_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.backend.tracee import TraceeBackend
    from kvmenc.kvm import Vm
    from kvmenc.memory.slots import MemSlot
    from kvmenc.ring import DirtyRing

__all__ = ["DirtyLogSource", "DirtyRingSource", "PeekSource"]


class DirtyLogSource:
    """Reads KVM_GET_DIRTY_LOG, slot by slot.

    Args:
        vm: the VM, in this process.
        manual_protect: whether manual protect was enabled on it. If so the kernel's bits are
            cleared here, after the reader has merged them: none can be lost in between.
    """

    def __init__(self, vm: Vm, *, manual_protect: bool) -> None:
        self._vm = vm
        self._manual_protect = manual_protect
        self.name = "dirty log, manual protect" if manual_protect else "dirty log"

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's dirty words; valid until the next is asked for."""
        for slot in slots:
            words = self._vm.dirty_log(slot)
            yield slot, words
            if self._manual_protect:
                self._vm.clear_dirty_log(slot, words)


class DirtyRingSource:
    """Collects the dirty rings of all vCPUs into one bitmap a slot.

    Args:
        vm: the VM, with its ring enabled.
        rings: the rings of all its vCPUs.
        slots: every slot whose pages may appear.
    """

    name = "dirty ring"

    def __init__(self, vm: Vm, rings: Sequence[DirtyRing], slots: Sequence[MemSlot]) -> None:
        self._vm = vm
        self._rings = tuple(rings)
        self._words = {slot.key: np.zeros(words_for(slot.npages), dtype="<u8") for slot in slots}
        self._lock = threading.Lock()

    def collect(self) -> int:
        """Empty the rings into the bitmaps; returns the entries taken.

        Call it also when a vCPU stops with ``Exit.DIRTY_RING_FULL``, from any thread.
        """
        with self._lock:
            taken = [ring.harvest() for ring in self._rings]
            for slots, pages in taken:
                self._mark(slots, pages)
            self._vm.reset_dirty_rings()
            return sum(pages.size for _, pages in taken)

    def _mark(self, slots: np.ndarray, pages: np.ndarray) -> None:
        for key in np.unique(slots):
            words = self._words.get(int(key))
            if words is None:
                msg = f"the dirty ring names slot {int(key):#x}, which is not in the layout"
                raise HostError(msg)
            mine = pages[slots == key]
            if mine.max() >= words.size * 64:
                msg = f"the dirty ring names page {int(mine.max())} beyond slot {int(key):#x}"
                raise HostError(msg)
            bits = np.uint64(1) << (mine & np.uint64(63))
            np.bitwise_or.at(words, (mine >> np.uint64(6)).astype(np.intp), bits)

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's dirty words; valid until the next is asked for."""
        self.collect()
        for slot in slots:
            words = self._words[slot.key].copy()
            yield slot, words
            with self._lock:  # only what was merged; a vCPU thread may have collected more
                self._words[slot.key] &= ~words


class PeekSource:
    """Reads the dirty log of another process's VM, all slots in one stop, and takes nothing of it.

    Reading takes no bit where the VM has manual protect on, as QEMU's has since 4.1 unless it uses
    a dirty ring (v7.2, accel/kvm/kvm-all.c, kvm_init). Elsewhere it would take them all from the
    process's own migration; from outside the two cannot be told apart, so the caller must know.

    Args:
        backend: who asks; it knows the slots that will be read.
        vm_fd: the process's descriptor of the VM.

    Raises:
        NotSupported: this kernel has no manual protect, so the VM cannot have it on.
    """

    name = "dirty log of another process, not cleared"

    def __init__(self, backend: TraceeBackend, vm_fd: int) -> None:
        self._backend = backend
        self._vm_fd = vm_fd
        self._logs: dict[tuple[int, int], tuple[Words, uapi.kvm_dirty_log]] = {}
        cap = uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2
        if not call(backend, vm_fd, uapi.KVM_CHECK_EXTENSION, cap, f"cap={cap}"):
            raise NotSupported(
                "this kernel lacks KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: reading the dirty log would"
                " take its bits from the VMM"
            )

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Yield each slot's dirty words; valid until the next reading.

        Raises:
            SlotNotLogged: ENOENT: a slot is gone, or its log was stopped.
            IoctlError: ENXIO: the VM uses a dirty ring.
            HostError: the process is gone, stopped, or has no thread to be borrowed.
        """
        found = self.look(slots)
        for slot in slots:
            if slot not in found:
                raise _failed(slot, errno.ENOENT)
        yield from found.items()

    def look(self, slots: Sequence[MemSlot]) -> dict[MemSlot, Words]:
        """The dirty words of those slots that have a dirty log now; valid until the next reading.

        Raises:
            IoctlError, HostError: as ``read``, but for ENOENT.
        """
        logs = [self._log(slot) for slot in slots]
        requests = [
            Request(self._vm_fd, uapi.KVM_GET_DIRTY_LOG, ctypes.addressof(log)) for _, log in logs
        ]
        found = {}
        for slot, (words, _), result in zip(
            slots, logs, self._backend.ioctls(requests), strict=True
        ):
            if result >= 0:
                found[slot] = words
            elif result != -errno.ENOENT:
                raise _failed(slot, -result)
        return found

    def _log(self, slot: MemSlot) -> tuple[Words, uapi.kvm_dirty_log]:
        """A slot's words and the struct that points at them: made once, reused at every read."""
        key = slot.key, slot.npages
        if key not in self._logs:
            words = np.zeros(words_for(slot.npages), dtype="<u8")
            log = uapi.kvm_dirty_log(slot=slot.key)
            log.dirty_bitmap = words.ctypes.data  # lives as long as the words: both are kept here
            self._logs[key] = words, log
        return self._logs[key]


def _failed(slot: MemSlot, number: int) -> HostError:
    return named_error(uapi.KVM_GET_DIRTY_LOG.name, number, f"slot={slot.slot_id}")
