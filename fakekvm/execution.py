"""A vCPU at work: a script carried out step by step, until something must be told to userspace.

Source of what exits look like: Linux v6.12, arch/x86/kvm/x86.c, vcpu_enter_guest and
__kvm_emulate_hypercall; virt/kvm/dirty_ring.c, kvm_dirty_ring_check_request.
"""

from __future__ import annotations

import errno
import time
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fakekvm import decode
from fakekvm.bits import set_bits, test_bits, zeros
from fakekvm.errors import oserror
from fakekvm.guests import Flip, Halt, PortOut, Rest, WritePages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from numpy.typing import NDArray

    from fakekvm.guests import Script, Step
    from fakekvm.placement import Placement
    from fakekvm.ring import DirtyRing
    from fakekvm.runpage import RunPage
    from fakekvm.vm import Vm

__all__ = ["Execution"]

# Pages written with the VM's lock held: bounds how long a reader of the dirty log waits (0.2 ms).
_BATCH_PAGES = 512
_NAP_S = 1e-3  # so late a vCPU at rest sees that it is to stop
_RAX = 0


def _never() -> bool:
    return False


class Execution:
    """The script of one vCPU and how far it has come.

    Args:
        vm: whose memory is written.
        page: where exits are told.
        ring: where dirty pages are told; None: in the slots' bitmaps.
        registers: the vCPU's; a hypercall's number (then its result) is in rax, its arguments in
            rbx, rcx and rdx, the next three.
    """

    def __init__(self, vm: Vm, page: RunPage, ring: DirtyRing | None, registers: list[int]) -> None:
        self._vm = vm
        self._page = page
        self._ring = ring
        self._registers = registers
        self.load(())

    def load(self, script: Script) -> None:
        """Begin with another script."""
        self._steps: Iterator[Step] = iter(script)
        self._to_write: NDArray[np.int64] | range = range(0)
        self._value = 0
        self._awaits_hypercall_ret = False
        self._rests_until: float | None = None

    def run(self, is_signalled: Callable[[], bool] = _never) -> None:
        """Go on until an exit, which is told in kvm_run.

        Args:
            is_signalled: asked between steps: whether the thread that runs it must see to a signal.

        Raises:
            OSError: EINTR, for a signal or if userspace asked for an immediate exit: where that
                was asked before the first step with kvm_run as it was, else with KVM_EXIT_INTR;
                EFAULT, if guest memory is not there.
        """
        if self._awaits_hypercall_ret:
            self._registers[_RAX] = self._page.hypercall_ret()
            self._awaits_hypercall_ret = False
        if self._page.wants_exit():
            raise oserror(errno.EINTR)
        while not is_signalled():
            if self._exits():
                return
            if self._page.wants_exit():
                break
        self._page.exit(decode.KVM_EXIT_INTR)
        raise oserror(errno.EINTR)

    def _exits(self) -> bool:
        """Carry out a bit more; whether that ended in an exit."""
        if self._ring is not None and self._ring.is_full():
            self._page.exit(decode.KVM_EXIT_DIRTY_RING_FULL)
            return True
        if len(self._to_write):
            return self._write_batch()
        if self._rests_until is not None:
            return self._nap(self._rests_until)
        step = next(self._steps, Halt())
        return self._ACTIONS[type(step)](self, step)

    def _write(self, step: WritePages) -> bool:
        self._to_write, self._value = step.gfns, step.value
        return False

    def _write_batch(self) -> bool:
        gfns = np.asarray(self._to_write[:_BATCH_PAGES], np.int64)
        with self._vm.lock:
            placement = self._vm.slots.map.place(gfns)
            count = _leading(placement.slots >= 0)
            if count:
                # Marked before written, as a fault is: if this is cut short, a page may be dirty
                # that was not written, but none is written that is not dirty.
                count = self._mark(placement, count)
                self._vm.memory.write_words(placement.addresses[:count], self._value)
        if count:
            self._to_write = self._to_write[count:]
            return False
        self._to_write = self._to_write[1:]
        gpa = int(gfns[0]) << decode.PAGE_SHIFT & decode.U64
        self._page.exit_mmio_write(gpa, self._value)
        return True

    def _mark(self, placement: Placement, count: int) -> int:
        """Log the first ``count`` writes; returns how many of them may be done now."""
        slots, pages = placement.slots[:count], placement.pages[:count]
        if self._ring is not None:
            return self._push(self._ring, slots, pages)
        for index in _distinct(slots):
            log = self._vm.slots.map.slots[index].log
            if log is not None:
                log.mark(pages[slots == index])
        return count

    def _push(self, ring: DirtyRing, slots: NDArray[np.int64], pages: NDArray[np.int64]) -> int:
        tells = self._first_writes(slots, pages).nonzero()[0]
        room = ring.room()
        count = int(tells[room]) if tells.size > room else slots.size
        tells = tells[:room]
        ring.push(self._vm.slots.map.keys[slots[tells]], pages[tells])
        for index in _distinct(slots[tells]):
            writable = self._vm.slots.map.slots[index].writable
            if writable is not None:
                set_bits(writable, pages[tells][slots[tells] == index])
        return count

    def _first_writes(
        self, slots: NDArray[np.int64], pages: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """Which of the writes a ring is told of."""
        told = np.zeros(slots.size, np.bool_)
        for index in _distinct(slots):
            slot = self._vm.slots.map.slots[index]
            here = np.flatnonzero(slots == index)
            if not slot.is_logged:
                continue
            if self._vm.services.host.ring_logs_every_write:
                told[here] = True
                continue
            if slot.writable is None:
                slot.writable = zeros(slot.npages)
            first = here[np.unique(pages[here], return_index=True)[1]]
            told[first] = ~test_bits(slot.writable, pages[first])
        return told

    def _flip(self, step: Flip) -> bool:
        gpa, attributes = step.gfn << decode.PAGE_SHIFT, 0
        if step.private:
            attributes = 1 if self._vm.enc else decode.KVM_MAP_GPA_RANGE_ENCRYPTED
        args = (gpa & decode.U64, step.npages & decode.U64, attributes)
        self._registers[:4] = decode.KVM_HC_MAP_GPA_RANGE, *args
        exits = self._vm.hypercall_exits >> decode.KVM_HC_MAP_GPA_RANGE & 1
        if self._vm.enc is not None:
            result = self._vm.enc.set_range(step.gfn, step.npages, step.private)
        elif not exits:
            result = -decode.KVM_ENOSYS
        elif not 0 < step.npages <= decode.U64 - step.gfn:
            result = -decode.KVM_EINVAL
        else:
            self._page.exit_hypercall(decode.KVM_HC_MAP_GPA_RANGE, args)
            self._awaits_hypercall_ret = True
            return True
        self._registers[_RAX] = result & decode.U64
        return False

    def _port_out(self, step: PortOut) -> bool:
        self._page.exit_port_out(step.port, step.size, step.value)
        return True

    def _halt(self, _step: Halt) -> bool:
        self._page.exit(decode.KVM_EXIT_HLT)
        return True

    def _rest(self, step: Rest) -> bool:
        self._rests_until = time.monotonic() + step.seconds
        return False

    def _nap(self, until: float) -> bool:
        left = until - time.monotonic()
        if left <= 0:
            self._rests_until = None
        else:
            time.sleep(min(left, _NAP_S))
        return False

    _ACTIONS: ClassVar[Mapping[type, Callable[[Execution, Any], bool]]] = {
        WritePages: _write,
        Flip: _flip,
        PortOut: _port_out,
        Halt: _halt,
        Rest: _rest,
    }


def _leading(flags: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return flags.size if flags.all() else int(flags.argmin())


def _distinct(slots: NDArray[np.int64]) -> list[int]:
    """The different values; usually there is one."""
    if slots.size and (slots == slots[0]).all():
        return [int(slots[0])]
    return [int(index) for index in np.unique(slots)]
