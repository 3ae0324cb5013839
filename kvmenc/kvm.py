"""KVM's file descriptors as objects: ``KvmSystem`` makes ``Vm``, ``Vm`` makes ``Vcpu``.

Each is a context manager and closes what it opened. Every method is one ioctl or a few; none loops
over pages. Source of what each does: Linux v6.12, Documentation/virt/kvm/api.rst, and
virt/kvm/kvm_main.c for the checks.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import threading
from contextlib import ExitStack
from enum import IntEnum
from typing import TYPE_CHECKING, Self

import numpy as np

from kvmenc import uapi
from kvmenc.backend import unmap
from kvmenc.call import call
from kvmenc.errors import BitmapSizeError, HostError, IoctlError, NoKvm, errno_name
from kvmenc.memory.words import Words, words_for
from kvmenc.ring import DirtyRing

if TYPE_CHECKING:
    import mmap

    from kvmenc.backend import Backend
    from kvmenc.memory.slots import MemSlot
    from kvmenc.uapi import Ioctl

__all__ = ["Exit", "KvmSystem", "Vcpu", "Vm"]

# Interrupts KVM_RUN. Ignored by default and blocked while it is used, so no handler is needed, and
# none of the program's own is disturbed.
_KICK = signal.SIGURG


class Exit(IntEnum):
    """Why KVM_RUN returned (``kvm_run.exit_reason``)."""

    UNKNOWN = uapi.KVM_EXIT_UNKNOWN
    IO = uapi.KVM_EXIT_IO
    HYPERCALL = uapi.KVM_EXIT_HYPERCALL
    HLT = uapi.KVM_EXIT_HLT
    MMIO = uapi.KVM_EXIT_MMIO
    SHUTDOWN = uapi.KVM_EXIT_SHUTDOWN
    FAIL_ENTRY = uapi.KVM_EXIT_FAIL_ENTRY
    INTR = uapi.KVM_EXIT_INTR
    INTERNAL_ERROR = uapi.KVM_EXIT_INTERNAL_ERROR
    DIRTY_RING_FULL = uapi.KVM_EXIT_DIRTY_RING_FULL
    MEMORY_FAULT = uapi.KVM_EXIT_MEMORY_FAULT


class _Fd:
    """A file descriptor of a backend, closed once."""

    def __init__(self, backend: Backend, fd: int) -> None:
        self.backend = backend
        self.fd = fd
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; what was mapped from it first. Closing twice does nothing."""
        self._cleanup.close()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            self.backend.close(fd)

    def ioctl(self, request: Ioctl, arg: ctypes.Structure | int = 0, detail: str = "") -> int:
        """Issue ``request``, checked; see ``kvmenc.call.call`` for what it raises."""
        return call(self.backend, self.fd, request, arg, detail)

    def check_extension(self, capability: int) -> int:
        """The value of a KVM_CAP_* here; 0 means absent."""
        return self.ioctl(uapi.KVM_CHECK_EXTENSION, capability, f"cap={capability}")


class KvmSystem(_Fd):
    """/dev/kvm, opened."""

    @classmethod
    def open(cls, backend: Backend, path: str = "/dev/kvm") -> Self:
        """Open ``path`` through ``backend`` and check its API version.

        Raises:
            NoKvm: it is absent, may not be opened, or speaks another API version.
        """
        try:
            self = cls(backend, backend.open(path, os.O_RDWR))
        except OSError as error:
            raise NoKvm(_why_not_open(path, error.errno or 0)) from error
        with ExitStack() as on_error:
            on_error.callback(self.close)
            version = self.ioctl(uapi.KVM_GET_API_VERSION)
            if version != uapi.KVM_API_VERSION:
                msg = f"{path} speaks KVM API version {version}, not {uapi.KVM_API_VERSION}"
                raise NoKvm(msg)
            on_error.pop_all()
        return self

    @property
    def vcpu_mmap_bytes(self) -> int:
        """Size of a vCPU's kvm_run mapping."""
        return self.ioctl(uapi.KVM_GET_VCPU_MMAP_SIZE)

    def create_vm(self, vm_type: int = 0) -> Vm:
        """A new, empty VM; it belongs to this process and dies with its last descriptor."""
        mmap_bytes = self.vcpu_mmap_bytes  # before there is a VM that would be left open
        fd = self.ioctl(uapi.KVM_CREATE_VM, vm_type, f"type={vm_type}")
        return Vm(self.backend, fd, mmap_bytes)


def _why_not_open(path: str, number: int) -> str:
    remedy = {
        errno.ENOENT: "load kvm_amd or kvm_intel, or pass the device into this container",
        errno.EACCES: "join the group that owns it (often `kvm`), or run as root",
        errno.EPERM: "join the group that owns it (often `kvm`), or run as root",
        errno.ENODEV: "the machine's virtualisation is switched off (firmware or hypervisor)",
    }.get(number, os.strerror(number))
    return f"cannot open {path}: {errno_name(number)}: {remedy}; or use --backend fake"


class _LogBuffer:
    """A slot's bitmap and the struct that points at it: made once, reused at every read."""

    def __init__(self, slot: MemSlot) -> None:
        self.npages = slot.npages
        self.words: Words = np.zeros(words_for(slot.npages), dtype="<u8")
        self.arg = uapi.kvm_dirty_log(slot=slot.key)
        self.arg.dirty_bitmap = self.words.ctypes.data  # lives as long as self.words: both here


class Vm(_Fd):
    """A virtual machine."""

    def __init__(self, backend: Backend, fd: int, vcpu_mmap_bytes: int) -> None:
        super().__init__(backend, fd)
        self._vcpu_mmap_bytes = vcpu_mmap_bytes
        self._ring_bytes = 0
        self._logs: dict[int, _LogBuffer] = {}

    # -- capabilities -----------------------------------------------------------------------

    def enable_cap(self, capability: int, *args: int) -> None:
        """KVM_ENABLE_CAP with up to four arguments.

        Raises:
            IoctlError: EINVAL, E2BIG: unknown, wrong arguments, or too late.
        """
        arg = uapi.kvm_enable_cap(cap=capability)
        arg.args[: len(args)] = list(args)
        self.ioctl(uapi.KVM_ENABLE_CAP, arg, f"cap={capability}, args={args}")

    def enable_manual_protect(self, *, initially_set: bool = False) -> None:
        """From now on reading the dirty log does not clear it: ``clear_dirty_log`` does.

        Args:
            initially_set: a slot's log starts all dirty, and unprotected, when logging is enabled
                on it later (cheap for large guests).
        """
        flags = uapi.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE
        if initially_set:
            flags |= uapi.KVM_DIRTY_LOG_INITIALLY_SET
        self.enable_cap(uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2, flags)

    def enable_dirty_ring(self, ring_bytes: int) -> None:
        """Track dirty pages in one ring of ``ring_bytes`` a vCPU; before the first vCPU, once."""
        self.enable_cap(uapi.KVM_CAP_DIRTY_LOG_RING_ACQ_REL, ring_bytes)
        self._ring_bytes = ring_bytes

    # -- memslots ---------------------------------------------------------------------------

    def set_slot(self, slot: MemSlot, page_size: int = 4096) -> None:
        """Create or change a memslot.

        Raises:
            IoctlError: EINVAL, EEXIST (it overlaps another slot).
        """
        self._set_region(slot, slot.npages * page_size, page_size)

    def delete_slot(self, slot: MemSlot, page_size: int = 4096) -> None:
        """Delete a memslot, and its dirty log with it."""
        self._set_region(slot, 0, page_size)
        self._logs.pop(slot.key, None)

    def _set_region(self, slot: MemSlot, size_bytes: int, page_size: int) -> None:
        flags = (
            uapi.KVM_MEM_LOG_DIRTY_PAGES * slot.log_dirty | uapi.KVM_MEM_READONLY * slot.readonly
        )
        region = uapi.kvm_userspace_memory_region(
            slot=slot.key,
            flags=flags,
            guest_phys_addr=slot.base_gfn * page_size,
            memory_size=size_bytes,
            userspace_addr=slot.userspace_addr,
        )
        self.ioctl(uapi.KVM_SET_USER_MEMORY_REGION, region, f"slot={slot.slot_id}")

    # -- dirty log --------------------------------------------------------------------------

    def dirty_log(self, slot: MemSlot, out: Words | None = None) -> Words:
        """The slot's dirty bitmap: KVM_GET_DIRTY_LOG.

        Side effect: without manual protect the kernel's bitmap is cleared by this reading.

        Args:
            slot: a slot with dirty logging on.
            out: words to read into, ALIGN(npages, 64) bits at least; by default a buffer of the
                VM's own, one a slot, valid until the slot's next reading.

        Returns:
            ``words_for(slot.npages)`` words; bit i = page i of the slot. Bits past the slot's
            end are not to be trusted.

        Raises:
            BitmapSizeError: ``out`` is too short: the kernel would write past its end.
            SlotNotLogged: ENOENT.
            IoctlError: ENXIO (the VM uses a dirty ring), EINVAL, EFAULT.
        """
        log = self._log(slot)
        if out is None:
            self.ioctl(uapi.KVM_GET_DIRTY_LOG, log.arg, f"slot={slot.slot_id}")
            return log.words
        _check_size(slot, out)
        arg = uapi.kvm_dirty_log(slot=slot.key)
        arg.dirty_bitmap = out.ctypes.data  # the caller's array outlives the call
        self.ioctl(uapi.KVM_GET_DIRTY_LOG, arg, f"slot={slot.slot_id}")
        return out

    def _log(self, slot: MemSlot) -> _LogBuffer:
        log = self._logs.get(slot.key)
        if log is None or log.npages != slot.npages:
            log = self._logs[slot.key] = _LogBuffer(slot)
        return log

    def clear_dirty_log(
        self, slot: MemSlot, words: Words, first_page: int = 0, npages: int | None = None
    ) -> None:
        """Clear the pages whose bits are set in ``words`` and write-protect them again.

        Page contents may be read only after this. Pages not set in ``words`` keep their bits.

        Args:
            slot: the slot.
            words: bit 0 = ``first_page``.
            first_page: multiple of 64.
            npages: multiple of 64, unless the range ends with the slot; by default to its end.

        Raises:
            BitmapSizeError: ``words`` holds fewer than ``npages`` bits.
            IoctlError: EINVAL (alignment), ENOENT, ENXIO.
        """
        npages = slot.npages - first_page if npages is None else npages
        if words.size < words_for(npages):
            raise BitmapSizeError(f"slot {slot.slot_id}", words_for(npages) * 8, words.nbytes)
        arg = uapi.kvm_clear_dirty_log(slot=slot.key, num_pages=npages, first_page=first_page)
        arg.dirty_bitmap = words.ctypes.data  # the caller's array outlives the call
        detail = f"slot={slot.slot_id}, first_page={first_page}, num_pages={npages}"
        self.ioctl(uapi.KVM_CLEAR_DIRTY_LOG, arg, detail)

    def reset_dirty_rings(self) -> int:
        """Give harvested ring entries back and protect their pages again; returns how many.

        Signals wait until it is done. Since Linux v6.17 a pending one ends the call (49005a2a3d2a,
        virt/kvm/dirty_ring.c, kvm_dirty_ring_reset), and of the entries that it had taken back the
        last ones, of up to 64 pages, are not protected again: nobody is told of writes to them.
        """
        old = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            return self.ioctl(uapi.KVM_RESET_DIRTY_RINGS)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, old)

    # -- vCPUs ------------------------------------------------------------------------------

    def create_vcpu(self, vcpu_id: int = 0) -> Vcpu:
        """A vCPU in its reset state, with a dirty ring if the VM has them."""
        fd = self.ioctl(uapi.KVM_CREATE_VCPU, vcpu_id, f"id={vcpu_id}")
        return Vcpu(self.backend, fd, self._vcpu_mmap_bytes, self._ring_bytes)


def _check_size(slot: MemSlot, out: Words) -> None:
    if out.dtype != np.dtype("<u8") or not out.flags.c_contiguous:
        msg = f"slot {slot.slot_id}: the bitmap must be contiguous little-endian 64-bit words"
        raise TypeError(msg)
    if out.size < words_for(slot.npages):
        raise BitmapSizeError(f"slot {slot.slot_id}", words_for(slot.npages) * 8, out.nbytes)


class Vcpu(_Fd):
    """A virtual CPU.

    Attributes:
        state: the kernel's kvm_run, shared: read it after ``run``.
        ring: the vCPU's dirty ring, or None.
    """

    def __init__(self, backend: Backend, fd: int, mmap_bytes: int, ring_bytes: int) -> None:
        super().__init__(backend, fd)
        try:
            self._map_all(mmap_bytes, ring_bytes)
        except BaseException:
            self.close()
            raise

    def _map_all(self, mmap_bytes: int, ring_bytes: int) -> None:
        self._map = self._mapped(mmap_bytes, 0)
        self.state = uapi.kvm_run.from_buffer(self._map)  # released by close, before the map
        self._cleanup.callback(self._release)
        self.ring: DirtyRing | None = None
        if ring_bytes:
            offset = uapi.KVM_DIRTY_LOG_PAGE_OFFSET * 4096
            self.ring = DirtyRing(self._mapped(ring_bytes, offset))
            self._cleanup.callback(self.ring.close)

    def _mapped(self, length: int, offset: int) -> mmap.mmap:
        area = self.backend.mmap(self.fd, length, offset)
        self._cleanup.callback(unmap, area)
        return area

    def _release(self) -> None:
        del self.state

    def run(self, timeout_s: float | None = None) -> Exit:
        """Run the guest until it exits.

        Args:
            timeout_s: give up after so many seconds (then ``Exit.INTR``), and whatever signals
                come, not before; None waits for ever.

        Returns:
            The reason; the details are in ``state``. Without a timeout ``Exit.INTR`` when a signal
            came, which is not retried here: the caller may want to stop.

        Raises:
            IoctlError: the vCPU cannot run (EFAULT with a memory fault, EINVAL, ...).
            HostError: an exit reason that kvmenc does not know.
        """
        if timeout_s is None:
            return self._run_once()
        with _Deadline(self, timeout_s) as deadline:
            while (reason := self._run_once()) == Exit.INTR and not deadline.is_over:
                pass
            return reason

    def _run_once(self) -> Exit:
        try:
            self.backend.ioctl(self.fd, uapi.KVM_RUN, 0)
        except InterruptedError:
            return Exit.INTR
        except OSError as error:
            if self.state.exit_reason == Exit.MEMORY_FAULT and error.errno == errno.EFAULT:
                return Exit.MEMORY_FAULT
            raise IoctlError("KVM_RUN", error.errno or 0) from error
        try:
            return Exit(self.state.exit_reason)
        except ValueError:
            msg = f"KVM_RUN stopped for a reason that is not handled: {self.state.exit_reason}"
            raise HostError(msg) from None

    def io_value(self) -> int:
        """The value that a guest's ``out`` wrote, after ``Exit.IO``."""
        io = self.state.io
        offset = io.data_offset
        return int.from_bytes(self._map[offset : offset + io.size], "little")

    def registers(self) -> uapi.kvm_regs:
        """The general registers: KVM_GET_REGS."""
        regs = uapi.kvm_regs()
        self.ioctl(uapi.KVM_GET_REGS, regs)
        return regs

    def set_registers(self, regs: uapi.kvm_regs) -> None:
        """Replace the general registers."""
        self.ioctl(uapi.KVM_SET_REGS, regs)

    def special_registers(self) -> uapi.kvm_sregs:
        """Segments, control registers: KVM_GET_SREGS."""
        sregs = uapi.kvm_sregs()
        self.ioctl(uapi.KVM_GET_SREGS, sregs)
        return sregs

    def set_special_registers(self, sregs: uapi.kvm_sregs) -> None:
        """Replace segments and control registers."""
        self.ioctl(uapi.KVM_SET_SREGS, sregs)

    def accept_in_run(self, blocked: set[signal.Signals] | None) -> None:
        """KVM_SET_SIGNAL_MASK: what stays blocked during KVM_RUN; None: what the thread blocks."""
        if blocked is None:
            self.ioctl(uapi.KVM_SET_SIGNAL_MASK, 0)
            return
        bits = sum(1 << (number - 1) for number in blocked)
        mask = ctypes.create_string_buffer((8).to_bytes(4, "little") + bits.to_bytes(8, "little"))
        self.ioctl(uapi.KVM_SET_SIGNAL_MASK, ctypes.addressof(mask))  # mask: alive during the call


class _Deadline:
    """Interrupts a vCPU that runs in this thread, and leaves no signal behind."""

    def __init__(self, vcpu: Vcpu, timeout_s: float) -> None:
        self._vcpu = vcpu
        self._thread = threading.get_ident()
        self._timer = threading.Timer(timeout_s, self._kick)
        self._timer.daemon = True

    @property
    def is_over(self) -> bool:
        """By the flag, which a recording keeps: in its replay no time passes."""
        return bool(self._vcpu.state.immediate_exit)

    def _kick(self) -> None:
        # The flag is for a vCPU that is not in KVM_RUN yet, the signal for one that is.
        self._vcpu.state.immediate_exit = 1
        signal.pthread_kill(self._thread, _KICK)

    def __enter__(self) -> Self:
        self._old_mask = signal.pthread_sigmask(signal.SIG_BLOCK, {_KICK})
        self._vcpu.accept_in_run({signal.Signals(it) for it in self._old_mask} - {_KICK})
        self._timer.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._timer.cancel()
        self._timer.join()
        self._vcpu.state.immediate_exit = 0
        self._vcpu.accept_in_run(None)
        signal.sigtimedwait({_KICK}, 0)  # a kick that came too late must not meet the next run
        signal.pthread_sigmask(signal.SIG_SETMASK, self._old_mask)
