"""What it takes to stop a thread and to hand it a signal frame, on x86-64.

Source: Linux v6.12, include/uapi/linux/ptrace.h and elf.h, arch/x86/include/uapi/asm/sigcontext.h
and ucontext.h, include/linux/errno.h (which no header for programs holds), and glibc's sys/user.h
and sys/syscall.h.
"""

from __future__ import annotations

import ctypes
from typing import Annotated

from kvmenc.uapi.cstruct import Struct, u16, u32, u64, u64x5

u32x7 = Annotated[ctypes.Array[ctypes.c_uint32], ctypes.c_uint32 * 7]
u64x2 = Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 2]
u64x8 = Annotated[ctypes.Array[ctypes.c_uint64], ctypes.c_uint64 * 8]

PTRACE_CONT = 7
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_GETEVENTMSG = 0x4201
PTRACE_GETREGSET = 0x4204
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_GETSIGMASK = 0x420A
PTRACE_EVENT_FORK = 1
PTRACE_EVENT_VFORK = 2
PTRACE_EVENT_CLONE = 3
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_SECCOMP = 7
PTRACE_EVENT_STOP = 128
PTRACE_O_TRACESYSGOOD = 1
PTRACE_O_TRACEFORK = 1 << PTRACE_EVENT_FORK
PTRACE_O_TRACEVFORK = 1 << PTRACE_EVENT_VFORK
PTRACE_O_TRACECLONE = 1 << PTRACE_EVENT_CLONE
PTRACE_O_TRACEEXEC = 1 << PTRACE_EVENT_EXEC
PTRACE_O_TRACESECCOMP = 1 << PTRACE_EVENT_SECCOMP
PTRACE_O_EXITKILL = 1 << 20
NT_X86_XSTATE = 0x202


class user_regs_struct(Struct):
    """A stopped thread's general registers, as PTRACE_GETREGS gives them."""

    r15: u64
    r14: u64
    r13: u64
    r12: u64
    rbp: u64
    rbx: u64
    r11: u64
    r10: u64
    r9: u64
    r8: u64
    rax: u64
    rcx: u64
    rdx: u64
    rsi: u64
    rdi: u64
    orig_rax: u64
    rip: u64
    cs: u64
    eflags: u64
    rsp: u64
    ss: u64
    fs_base: u64
    gs_base: u64
    ds: u64
    es: u64
    fs: u64
    gs: u64


class iovec(Struct):
    """A run of bytes in memory."""

    iov_base: u64
    iov_len: u64


# The signal frame: what the kernel leaves on a thread's stack, and rt_sigreturn takes back --------


class sigaltstack(Struct):
    """A ``stack_t``."""

    ss_sp: u64
    ss_flags: u32
    ss_size: u64


class sigcontext(Struct):
    """All general registers, and the address of the extended state."""

    r8: u64
    r9: u64
    r10: u64
    r11: u64
    r12: u64
    r13: u64
    r14: u64
    r15: u64
    rdi: u64
    rsi: u64
    rbp: u64
    rbx: u64
    rdx: u64
    rax: u64
    rcx: u64
    rsp: u64
    rip: u64
    eflags: u64
    cs: u16
    gs: u16
    fs: u16
    ss: u16
    err: u64
    trapno: u64
    oldmask: u64
    cr2: u64
    fpstate: u64
    reserved1: u64x8


class ucontext(Struct):
    """What rt_sigreturn reads, at the stack pointer."""

    uc_flags: u64
    uc_link: u64
    uc_stack: sigaltstack
    uc_mcontext: sigcontext
    uc_sigmask: u64


UC_FP_XSTATE = 0x1
UC_SIGCONTEXT_SS = 0x2
UC_STRICT_RESTORE_SS = 0x4


class fpx_sw_bytes(Struct):
    """Says how large the extended state is; lies at FPX_SW_BYTES_OFFSET of it."""

    magic1: u32
    extended_size: u32
    xfeatures: u64
    xstate_size: u32
    padding: u32x7


class xstate_header(Struct):
    """Says which parts of the extended state are in use; lies at XSTATE_HEADER_OFFSET of it."""

    xfeatures: u64
    reserved1: u64x2
    reserved2: u64x5


FPX_SW_BYTES_OFFSET = 464
XSTATE_HEADER_OFFSET = 512
FP_XSTATE_MAGIC1 = 0x46505853
FP_XSTATE_MAGIC2 = 0x46505845

# An interrupted system call's result before the kernel restarts it; never seen by programs.
ERESTARTSYS = 512
ERESTARTNOINTR = 513
ERESTARTNOHAND = 514
ERESTART_RESTARTBLOCK = 516

# System calls, as sys/syscall.h spells them.
SYS_open = 2
SYS_close = 3
SYS_poll = 7
SYS_mmap = 9
SYS_munmap = 11
SYS_rt_sigreturn = 15
SYS_ioctl = 16
SYS_dup = 32
SYS_dup2 = 33
SYS_nanosleep = 35
SYS_fcntl = 72
SYS_futex = 202
SYS_clock_nanosleep = 230
SYS_openat = 257
SYS_ppoll = 271
SYS_dup3 = 292
SYS_close_range = 436
SYS_openat2 = 437
SYS_pidfd_getfd = 438

# Their arguments.
PROT_READ = 1
PROT_WRITE = 2
MAP_PRIVATE = 0x2
MAP_ANONYMOUS = 0x20
MAP_NORESERVE = 0x4000
MAP_FIXED_NOREPLACE = 0x100000
FUTEX_WAIT = 0
FUTEX_WAIT_BITSET = 9
FUTEX_PRIVATE_FLAG = 128
FUTEX_CLOCK_REALTIME = 256
TIMER_ABSTIME = 1
