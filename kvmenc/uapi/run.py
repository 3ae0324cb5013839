"""kvm_run, the page that a vCPU shares with userspace, and the values of its fields.

Source: Linux v6.12, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h. Classes with an
underscore are structs that C leaves unnamed. The exit reasons are in ``exits``.
"""

from __future__ import annotations

from kvmenc.uapi.cstruct import (
    Struct,
    Union,
    u8,
    u8x6,
    u8x7,
    u8x8,
    u8x256,
    u8x2048,
    u16,
    u32,
    u64,
    u64x6,
    u64x16,
)


class _hw(Struct):
    hardware_exit_reason: u64


class _fail_entry(Struct):
    hardware_entry_failure_reason: u64
    cpu: u32


class _ex(Struct):
    exception: u32
    error_code: u32


class _io(Struct):
    direction: u8
    size: u8
    port: u16
    count: u32
    data_offset: u64  # from the start of kvm_run


class _mmio(Struct):
    phys_addr: u64
    data: u8x8
    len: u32
    is_write: u8


class _hypercall(Struct):
    nr: u64
    args: u64x6
    ret: u64  # userspace's answer to the guest
    flags: u64


class _internal(Struct):
    suberror: u32
    ndata: u32
    data: u64x16


class _system_event(Struct):
    type: u32
    ndata: u32
    data: u64x16


class _msr(Struct):
    error: u8
    pad: u8x7
    reason: u32
    index: u32
    data: u64


class _memory_fault(Struct):
    flags: u64
    gpa: u64
    size: u64


class _exit(Union):
    hw: _hw
    fail_entry: _fail_entry
    ex: _ex
    io: _io
    mmio: _mmio
    hypercall: _hypercall
    internal: _internal
    system_event: _system_event
    msr: _msr
    memory_fault: _memory_fault
    padding: u8x256


class kvm_run(Struct):
    """What KVM_RUN reports: mmap of the vCPU fd at offset 0, KVM_GET_VCPU_MMAP_SIZE bytes.

    ``exit_reason`` says which member of the union holds (``run.io``, ``run.hypercall``, ...).
    """

    _anonymous_ = ("exit",)

    request_interrupt_window: u8
    immediate_exit: u8
    padding1: u8x6
    exit_reason: u32
    ready_for_interrupt_injection: u8
    if_flag: u8
    flags: u16
    cr8: u64
    apic_base: u64
    exit: _exit
    kvm_valid_regs: u64
    kvm_dirty_regs: u64
    s: u8x2048


KVM_RUN_X86_SMM = 1 << 0
KVM_RUN_X86_BUS_LOCK = 1 << 1
KVM_RUN_X86_GUEST_MODE = 1 << 2

# Where in a vCPU's mapping they are, in pages; of the dirty ring, see ``kvm``.
KVM_PIO_PAGE_OFFSET = 1
KVM_COALESCED_MMIO_PAGE_OFFSET = 2

KVM_EXIT_IO_IN = 0
KVM_EXIT_IO_OUT = 1

KVM_EXIT_HYPERCALL_LONG_MODE = 1 << 0

KVM_MEMORY_EXIT_FLAG_PRIVATE = 1 << 3

KVM_INTERNAL_ERROR_EMULATION = 1
KVM_INTERNAL_ERROR_SIMUL_EX = 2
KVM_INTERNAL_ERROR_DELIVERY_EV = 3
KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON = 4

KVM_SYSTEM_EVENT_SHUTDOWN = 1
KVM_SYSTEM_EVENT_RESET = 2
KVM_SYSTEM_EVENT_CRASH = 3
KVM_SYSTEM_EVENT_SEV_TERM = 6
