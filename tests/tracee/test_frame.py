"""The chain's bytes: what the thread pops, stores and restores, call after call."""

from __future__ import annotations

import ctypes
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from kvmenc import uapi
from kvmenc.tracee.frame import Chain, SystemCall
from kvmenc.tracee.gadgets import Gadgets
from kvmenc.tracee.xstate import XstateFormat, xstate_format

GADGETS = Gadgets(syscall=0x1000, sigreturn=0x2000, pop=0x3000, store=0x4000, displacement=-8)
SW_BYTES = struct.pack("<IIQI28x", uapi.FP_XSTATE_MAGIC1, 1092, 0b111, 1088)
XSTATE = XstateFormat(1088, 0b111, SW_BYTES)
UCONTEXT_BYTES = 304
CARRIED = "r8 r9 r10 r11 r12 r13 r14 r15 rdi rsi rbp rbx rdx rax rcx rsp rip eflags"
ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")
u64s = st.integers(0, (1 << 64) - 1)
system_calls = st.builds(SystemCall, st.integers(0, 500), st.lists(u64s, max_size=6).map(tuple))
stacks = st.integers(0x7000_0000_0000 // 16, 0x7FFF_0000_0000 // 16).map(lambda n: n * 16 + 8)


class Thread:
    """Follows a chain as a CPU and the kernel would."""

    def __init__(self, chain: Chain) -> None:
        self._data, self._base = bytes(chain.data), chain.base
        self.rsp, self.rip = chain.regs.rsp, chain.regs.rip
        self.regs = {name: getattr(chain.regs, name) for name in (*ARGUMENTS, "rax")}
        self.stored: list[int] = []

    def word(self) -> int:
        """Pop it."""
        (value,) = struct.unpack_from("<Q", self._data, self.rsp - self._base)
        self.rsp += 8
        return int(value)

    def call(self, *, stores: bool) -> uapi.ucontext:
        """From ``syscall; ret`` to rt_sigreturn; the frame that this reads."""
        assert self.rip == GADGETS.syscall
        if stores:
            assert self.word() == GADGETS.pop
            self.stored.append(self.word() + GADGETS.displacement)
            assert self.word() == GADGETS.store
        assert self.word() == GADGETS.sigreturn
        frame = uapi.ucontext.from_buffer_copy(self._data, self.rsp - self._base)
        context = frame.uc_mcontext
        self.rip, self.rsp = context.rip, context.rsp
        self.regs = {name: getattr(context, name) for name in self.regs}
        return frame


def chain_of(
    calls: list[SystemCall], results: list[int] | None, rsp: int, registers: dict[str, int]
) -> Chain:
    chain = Chain(calls, results, rsp, GADGETS, XSTATE)
    for name, value in registers.items():
        setattr(chain.regs, name, value)
    chain.regs.rsp = rsp
    ctypes.c_uint64.from_address(chain.sigmask_address).value = 0x5555
    ctypes.memset(chain.state_iovec.iov_base, 0xAB, XSTATE.size_bytes)
    chain.restore(rip=0x1234, rax=0x4321)
    chain.enter()
    return chain


names = [name for name, *_ in uapi.user_regs_struct._fields_]
segments = {"cs": st.just(0x33), "ss": st.just(0x2B)}
registers = st.fixed_dictionaries(dict.fromkeys(names, u64s) | segments)


@given(st.lists(system_calls, min_size=1, max_size=5), st.booleans(), stacks, registers)
def test_a_chain_makes_every_call_and_ends_in_the_interrupted_state(
    calls: list[SystemCall], stores: bool, rsp: int, registers: dict[str, int]
) -> None:
    results = [0x6B76_0000_0040 + 8 * i for i in range(len(calls))]
    chain = chain_of(calls, results if stores else None, rsp, registers)
    assert chain.regs.orig_rax == (1 << 64) - 1
    thread, frames = Thread(chain), []
    for call in calls:
        assert thread.regs["rax"] == call.number
        passed = [thread.regs[name] for name in ARGUMENTS]
        assert passed[: len(call.args)] == list(call.args)
        frames.append(thread.call(stores=stores))
    assert thread.stored == (results if stores else [])
    context = frames[-1].uc_mcontext
    changed = {"rip": 0x1234, "rax": 0x4321, "rsp": rsp}
    for name in CARRIED.split():
        assert getattr(context, name) == (registers | changed)[name]
    assert (context.cs, context.ss) == (0x33, 0x2B)
    assert frames[-1].uc_sigmask == 0x5555


@given(st.lists(system_calls, min_size=1, max_size=5), stacks)
def test_the_extended_state_is_what_the_kernel_accepts(calls: list[SystemCall], rsp: int) -> None:
    chain = chain_of(calls, None, rsp, {})
    data, thread = bytes(chain.data), Thread(chain)
    frames = [thread.call(stores=False) for _ in calls]
    state = frames[-1].uc_mcontext.fpstate
    assert state % 64 == 0
    at = state - chain.base
    assert data[at + 464 : at + 512] == SW_BYTES
    assert data[at : at + 464] == b"\xab" * 464
    assert data[at + 512 : at + 1088] == b"\xab" * 576
    assert data[at + 1088 :] == struct.pack("<I", uapi.FP_XSTATE_MAGIC2)


@settings(max_examples=20)
@given(st.integers(1, 500), st.booleans(), stacks)
def test_a_chain_lies_below_the_red_zone_and_nothing_overlaps(
    count: int, stores: bool, rsp: int
) -> None:
    calls = [SystemCall(39)] * count
    results = [0x6B76_0000_0040] * count if stores else None
    chain = Chain(calls, results, rsp, GADGETS, XSTATE)
    assert chain.base + ctypes.sizeof(chain.data) <= rsp - 128
    assert chain.base > rsp - 128 - ctypes.sizeof(chain.data) - 64
    words = 4 if stores else 1
    assert ctypes.sizeof(chain.data) >= count * (words * 8 + UCONTEXT_BYTES) + 1092


def test_a_state_that_a_frame_cannot_hold_is_noticed() -> None:
    chain = Chain([SystemCall(39)], None, 0x7000_0000_0008, GADGETS, XSTATE)
    state = chain.state_iovec.iov_base + uapi.XSTATE_HEADER_OFFSET
    in_use = ctypes.c_uint64.from_address(state)
    in_use.value = 0b111
    assert chain.fits_state()
    in_use.value = 0b111 | 1 << 18  # AMX tiles
    assert not chain.fits_state()
    in_use.value = 0b111
    chain.state_iovec.iov_len = XSTATE.size_bytes - 8
    assert not chain.fits_state()


def test_this_kernels_frames_say_how_large_their_state_is() -> None:
    found = xstate_format()
    words = uapi.fpx_sw_bytes.from_buffer_copy(found.sw_bytes)
    assert words.magic1 == uapi.FP_XSTATE_MAGIC1
    assert words.extended_size == found.extended_size_bytes
    assert found.xfeatures & 0b11 == 0b11
    assert found.size_bytes >= 512 + 64
    assert found.size_bytes % 8 == 0
