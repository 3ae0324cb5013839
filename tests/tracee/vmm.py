"""A process with a VM whose dirty bits are known: a VMM without a guest.

Usage: python -m tests.tracee.vmm SEED NPAGES... : one slot for each number. All bits are set when
logging starts; those that a random pattern of the seed lacks are cleared. Prints a line when that
is done; then, for each line on stdin, does it: ``clear`` clears all bits, ``unlog`` stops logging.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.backend import LocalBackend
from kvmenc.kvm import KvmSystem, Vm
from kvmenc.memory.slots import MemSlot
from kvmenc.memory.words import mask_tail, words_for

if TYPE_CHECKING:
    from kvmenc.memory.words import Words


def slots_of(npages: list[int]) -> list[MemSlot]:
    return [MemSlot(i, i << 20, n, 0) for i, n in enumerate(npages)]


def pattern_of(slot: MemSlot, seed: int) -> Words:
    """The slot's dirty bits."""
    rng = np.random.default_rng([seed, slot.slot_id])
    words = rng.integers(0, 1 << 64, words_for(slot.npages), "<u8")
    mask_tail(words, slot.npages)
    return words


def sleep() -> None:
    """What every VMM that is looked into has: a thread that sleeps, its signals blocked."""
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    threading.Event().wait()


def main() -> None:
    seed, npages = int(sys.argv[1]), list(map(int, sys.argv[2:]))
    threading.Thread(target=sleep, daemon=True).start()
    with KvmSystem.open(LocalBackend()) as system, system.create_vm() as vm:
        vm.enable_manual_protect(initially_set=True)
        slots = [_set_up(vm, slot, seed) for slot in slots_of(npages)]
        print("ready", flush=True)
        for line in sys.stdin:
            for slot in slots:
                if line == "clear\n":
                    vm.clear_dirty_log(slot, np.full(words_for(slot.npages), (1 << 64) - 1, "<u8"))
                else:
                    vm.set_slot(replace(slot, log_dirty=False))
            print("done", flush=True)


def _set_up(vm: Vm, slot: MemSlot, seed: int) -> MemSlot:
    area = mmap.mmap(-1, slot.npages * mmap.PAGESIZE)
    address = ctypes.addressof(ctypes.c_char.from_buffer(area))
    _kept.append(area)
    slot = replace(slot, userspace_addr=address)
    vm.set_slot(slot)
    vm.clear_dirty_log(slot, ~pattern_of(slot, seed))
    return slot


_kept: list[mmap.mmap] = []

if __name__ == "__main__":
    main()
    os._exit(0)
