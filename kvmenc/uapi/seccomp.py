"""A filter that tells which system calls of a program its tracer is asked about, on x86-64.

Source: Linux v6.12, include/uapi/linux/seccomp.h, filter.h, bpf_common.h, audit.h and prctl.h.
"""

from __future__ import annotations

from kvmenc.uapi.cstruct import Struct, u8, u16, u32, u64, u64x6

PR_SET_PDEATHSIG = 1
PR_SET_SECCOMP = 22
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
SECCOMP_MODE_FILTER = 2

AUDIT_ARCH_X86_64 = 0xC000003E
SECCOMP_RET_TRACE = 0x7FF00000
SECCOMP_RET_ALLOW = 0x7FFF0000

# What an instruction's code is put together from.
BPF_LD = 0x00
BPF_ALU = 0x04
BPF_JMP = 0x05
BPF_RET = 0x06
BPF_W = 0x00
BPF_ABS = 0x20
BPF_K = 0x00
BPF_AND = 0x50
BPF_JEQ = 0x10


class sock_filter(Struct):
    """An instruction; ``jt`` and ``jf`` are how many to leave out."""

    code: u16
    jt: u8
    jf: u8
    k: u32


class sock_fprog(Struct):
    """A program: the address of ``len`` instructions."""

    len: u16
    filter: u64


class seccomp_data(Struct):
    """What a filter looks at. ``args`` has six elements."""

    nr: u32
    arch: u32
    instruction_pointer: u64
    args: u64x6
