"""The chain: bytes on a thread's stack that make it call the kernel, and then be as it was.

Each system call's way, from ``syscall; ret`` on::

    ret ─► pop %reg; ret ─► mov %rax,(%reg); ret ─► rt_sigreturn ─► all registers of the next call,
                            (the result, in scratch memory)          or the interrupted state

rt_sigreturn is the kernel's own way of putting a thread back after a signal: general registers,
extended state and signal mask at once, whether a tracer lives or not. So nothing that happens to us
after the thread was set on its way can hurt it.

Nothing here touches a process. Source: Linux v6.12, arch/x86/kernel/signal_64.c, and
arch/x86/include/asm/sigframe.h, struct rt_sigframe: a return address, then the ucontext; the stack
pointer is at the ucontext when rt_sigreturn is called.
"""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc import uapi

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.tracee.gadgets import Gadgets
    from kvmenc.tracee.xstate import XstateFormat

__all__ = ["Chain", "SystemCall"]

_U64 = (1 << 64) - 1
_SIGMASK_OFFSET = ctypes.sizeof(uapi.ucontext) - 8  # the last member
_RED_ZONE_BYTES = 128  # below the stack pointer, and yet in use: System V ABI for x86-64
_XSTATE_ALIGNMENT = 64
_USER_CS, _USER_SS = 0x33, 0x2B  # arch/x86/include/asm/segment.h, __USER_CS and __USER_DS
_EFLAGS = 0x202  # interrupts on, and the bit that is always 1
# do_sigaltstack refuses it and rt_sigreturn does not mind: so the thread's alternate signal stack
# stays as it is. Source: kernel/signal.c, restore_altstack ("squash all but EFAULT for now").
_NO_SUCH_SS_FLAGS = 3
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
# sigcontext from r8 to ss, packed: writing its members one by one would take 20 us of the stop.
_GENERAL = struct.Struct("<18Q4H")


@dataclass(frozen=True, slots=True)
class SystemCall:
    """A system call to be made by another process.

    Attributes:
        number: as in sys/syscall.h.
        args: up to six, addresses being those of the other process.
    """

    number: int
    args: tuple[int, ...] = ()


class Chain:
    """The chain for ``calls``, to lie below ``stack_pointer``; ready but for the state to restore.

    Args:
        calls: at least one.
        results: the scratch address of each call's result, 8 bytes each; None where no result is
            wanted (and no scratch memory needed).
        stack_pointer: of the thread.
        gadgets: of the process.
        xstate: of this host.

    Attributes:
        stack_pointer: as given.
        data: the bytes.
        base: the address they belong at.
        regs: the interrupted state, to be read into here.
        state_iovec: where the extended state is to be read to.
        sigmask_address: where (in our memory) the signal mask is to be read to.
    """

    def __init__(
        self,
        calls: Sequence[SystemCall],
        results: Sequence[int] | None,
        stack_pointer: int,
        gadgets: Gadgets,
        xstate: XstateFormat,
    ) -> None:
        ways = [_way(gadgets, results[i] if results else None) for i in range(len(calls))]
        block_bytes = len(ways[0]) * 8 + ctypes.sizeof(uapi.ucontext)
        state_at = _up(len(calls) * block_bytes, _XSTATE_ALIGNMENT)
        nbytes = state_at + xstate.extended_size_bytes
        self.stack_pointer = stack_pointer
        self.data = (ctypes.c_char * nbytes)()
        self.base = (stack_pointer - _RED_ZONE_BYTES - nbytes) & -_XSTATE_ALIGNMENT
        self.regs = uapi.user_regs_struct()
        self._gadgets = gadgets
        self._xstate = xstate
        self._first = calls[0]
        for i, way in enumerate(ways):
            ctypes.memmove(ctypes.addressof(self.data) + i * block_bytes, bytes(way), 8 * len(way))
        frames = [
            uapi.ucontext.from_buffer(self.data, i * block_bytes + len(way) * 8)
            for i, way in enumerate(ways)
        ]
        for i, frame in enumerate(frames[:-1], start=1):
            self._fill_call(frame, calls[i], self.base + i * block_bytes)
        self._last = frames[-1]
        self._fill_last(state_at)

    def _fill_call(self, frame: uapi.ucontext, call: SystemCall, stack_pointer: int) -> None:
        """Registers of a call. Extended state: the initial one; signals: all wait until the end."""
        self._fill(frame)
        frame.uc_sigmask = _U64
        context = frame.uc_mcontext
        _set_call(context, call)
        context.rip, context.rsp = self._gadgets.syscall, stack_pointer
        context.cs, context.ss, context.eflags = _USER_CS, _USER_SS, _EFLAGS

    def _fill_last(self, state_at: int) -> None:
        self._fill(self._last)
        context_address = ctypes.addressof(self._last.uc_mcontext)
        self._general_at = context_address - ctypes.addressof(self.data)
        self._last.uc_mcontext.fpstate = self.base + state_at
        address = ctypes.addressof(self.data) + state_at
        size_bytes = self._xstate.size_bytes
        self.state_iovec = uapi.iovec(address, size_bytes)
        self.sigmask_address = ctypes.addressof(self._last) + _SIGMASK_OFFSET
        self._state = uapi.xstate_header.from_address(address + uapi.XSTATE_HEADER_OFFSET)
        self._sw_address = address + uapi.FPX_SW_BYTES_OFFSET
        end = ctypes.c_uint32.from_address(address + size_bytes)
        end.value = uapi.FP_XSTATE_MAGIC2

    @staticmethod
    def _fill(frame: uapi.ucontext) -> None:
        frame.uc_flags = uapi.UC_FP_XSTATE | uapi.UC_SIGCONTEXT_SS | uapi.UC_STRICT_RESTORE_SS
        frame.uc_stack.ss_flags = _NO_SUCH_SS_FLAGS

    @property
    def sigmask(self) -> int:
        """The thread's signal mask, once read."""
        return self._last.uc_sigmask

    def fits_state(self) -> bool:
        """Whether a signal frame can hold the extended state that was read."""
        complete = self.state_iovec.iov_len == self._xstate.size_bytes
        return complete and not self._state.xfeatures & ~self._xstate.xfeatures

    def restore(self, rip: int, rax: int) -> None:
        """Fill the last frame: ``regs`` and the extended state, both read before, go on at ``rip``.

        Args:
            rip: where the thread goes on.
            rax: what it finds in rax there.
        """
        ctypes.memmove(self._sw_address, self._xstate.sw_bytes, len(self._xstate.sw_bytes))
        it = self.regs
        _GENERAL.pack_into(
            self.data,
            self._general_at,
            *(it.r8, it.r9, it.r10, it.r11, it.r12, it.r13, it.r14, it.r15),
            *(it.rdi, it.rsi, it.rbp, it.rbx, it.rdx, rax, it.rcx, it.rsp, rip, it.eflags),
            *(it.cs, 0, 0, it.ss),
        )

    def enter(self) -> None:
        """Change ``regs`` into those that start the chain."""
        regs = self.regs
        _set_call(regs, self._first)
        regs.rip, regs.rsp = self._gadgets.syscall, self.base
        regs.orig_rax = _U64  # -1: the kernel is to restart nothing


def _way(gadgets: Gadgets, result: int | None) -> ctypes.Array[ctypes.c_uint64]:
    words = [gadgets.sigreturn]
    if result is not None:
        words = [gadgets.pop, result - gadgets.displacement, gadgets.store, *words]
    return (ctypes.c_uint64 * len(words))(*words)


def _set_call(registers: uapi.sigcontext | uapi.user_regs_struct, call: SystemCall) -> None:
    registers.rax = call.number
    for name, value in zip(_ARGUMENTS, call.args, strict=False):
        setattr(registers, name, value & _U64)


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
