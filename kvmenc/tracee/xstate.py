"""How large the extended state (AVX and the like) of a signal frame is, asked of the kernel.

A debugger is shown the largest state that the CPU can have. A signal frame that large is not
accepted where the thread did not ask for the dynamic part (AMX): the kernel would then restore the
oldest registers only, silently. So we take a signal ourselves and look at the frame it comes with.
Source: Linux v6.12, arch/x86/kernel/fpu/signal.c, check_xstate_in_sigframe.
"""

from __future__ import annotations

import ctypes
import signal
from dataclasses import dataclass
from functools import cache

from kvmenc import uapi
from kvmenc.errors import HostError

__all__ = ["XstateFormat", "xstate_format"]

_SA_SIGINFO = 4
_SIGNAL = signal.SIGRTMAX
_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


@dataclass(frozen=True, slots=True)
class XstateFormat:
    """The extended state in a signal frame of this kernel on this CPU.

    Attributes:
        size_bytes: of the state itself; the end mark comes after it.
        xfeatures: what it holds, one bit for each part.
        sw_bytes: what says so, as it stands in the frame at FPX_SW_BYTES_OFFSET.
    """

    size_bytes: int
    xfeatures: int
    sw_bytes: bytes

    @property
    def extended_size_bytes(self) -> int:
        """With the end mark."""
        return self.size_bytes + ctypes.sizeof(ctypes.c_uint32)


class _sigaction(ctypes.Structure):  # noqa: N801 - glibc's
    _fields_ = (
        ("sa_sigaction", ctypes.c_void_p),
        ("sa_mask", ctypes.c_ulong * 16),
        ("sa_flags", ctypes.c_int),
        ("sa_restorer", ctypes.c_void_p),
    )


@cache
def xstate_format() -> XstateFormat:
    """The format, from a signal that the calling thread sends itself.

    Raises:
        HostError: the CPU or kernel has no XSAVE.
    """
    words = uapi.fpx_sw_bytes.from_buffer_copy(_own_sw_bytes())
    if words.magic1 != uapi.FP_XSTATE_MAGIC1:
        raise HostError("this CPU has no XSAVE: threads of another process cannot be borrowed")
    return XstateFormat(words.xstate_size, words.xfeatures, bytes(words))


def _own_sw_bytes() -> bytes:
    seen = []

    def look(_signal: int, _info: int, context: int) -> None:
        fpstate = uapi.ucontext.from_address(context).uc_mcontext.fpstate
        address = fpstate + uapi.FPX_SW_BYTES_OFFSET
        seen.append(ctypes.string_at(address, ctypes.sizeof(uapi.fpx_sw_bytes)))

    libc = ctypes.CDLL(None)
    before = _sigaction()
    handler = _HANDLER(look)
    ours = _sigaction(ctypes.cast(handler, ctypes.c_void_p), sa_flags=_SA_SIGINFO)
    mask = signal.pthread_sigmask(signal.SIG_UNBLOCK, {_SIGNAL})
    libc.sigaction(_SIGNAL, ctypes.byref(ours), ctypes.byref(before))
    try:
        libc["raise"](_SIGNAL)
    finally:
        libc.sigaction(_SIGNAL, ctypes.byref(before), None)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return seen[0]
