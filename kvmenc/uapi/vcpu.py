"""ioctls of a vCPU and its registers. What KVM_RUN reports is in ``run`` and ``exits``.

Source: Linux v6.12, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

from kvmenc.uapi.cstruct import Struct, u8, u16, u16x3, u32, u64, u64x4, u64x5
from kvmenc.uapi.ioc import _IO, _IOR, _IOW, _IOWR
from kvmenc.uapi.kvm import KVMIO, kvm_cpuid2

KVM_RUN = _IO("KVM_RUN", KVMIO, 0x80)
KVM_SET_CPUID2 = _IOW("KVM_SET_CPUID2", KVMIO, 0x90, kvm_cpuid2)


class kvm_signal_mask(Struct):
    """Head of a signal mask: ``len`` bytes of the kernel's sigset follow it in memory."""

    len: u32


KVM_SET_SIGNAL_MASK = _IOW("KVM_SET_SIGNAL_MASK", KVMIO, 0x8B, kvm_signal_mask)


class kvm_pre_fault_memory(Struct):
    """Maps a guest physical range, in bytes, before it is touched."""

    gpa: u64
    size: u64
    flags: u64
    padding: u64x5


KVM_PRE_FAULT_MEMORY = _IOWR("KVM_PRE_FAULT_MEMORY", KVMIO, 0xD5, kvm_pre_fault_memory)


# Registers -------------------------------------------------------------------------------------


class kvm_regs(Struct):
    """General registers of an x86 vCPU."""

    rax: u64
    rbx: u64
    rcx: u64
    rdx: u64
    rsi: u64
    rdi: u64
    rsp: u64
    rbp: u64
    r8: u64
    r9: u64
    r10: u64
    r11: u64
    r12: u64
    r13: u64
    r14: u64
    r15: u64
    rip: u64
    rflags: u64


class kvm_segment(Struct):
    """A segment register with its hidden part."""

    base: u64
    limit: u32
    selector: u16
    type: u8
    present: u8
    dpl: u8
    db: u8
    s: u8
    l: u8  # noqa: E741 - the header's name
    g: u8
    avl: u8
    unusable: u8
    padding: u8


class kvm_dtable(Struct):
    """GDTR or IDTR."""

    base: u64
    limit: u16
    padding: u16x3


class kvm_sregs(Struct):
    """Segment, control and descriptor table registers."""

    cs: kvm_segment
    ds: kvm_segment
    es: kvm_segment
    fs: kvm_segment
    gs: kvm_segment
    ss: kvm_segment
    tr: kvm_segment
    ldt: kvm_segment
    gdt: kvm_dtable
    idt: kvm_dtable
    cr0: u64
    cr2: u64
    cr3: u64
    cr4: u64
    cr8: u64
    efer: u64
    apic_base: u64
    interrupt_bitmap: u64x4


KVM_GET_REGS = _IOR("KVM_GET_REGS", KVMIO, 0x81, kvm_regs)
KVM_SET_REGS = _IOW("KVM_SET_REGS", KVMIO, 0x82, kvm_regs)
KVM_GET_SREGS = _IOR("KVM_GET_SREGS", KVMIO, 0x83, kvm_sregs)
KVM_SET_SREGS = _IOW("KVM_SET_SREGS", KVMIO, 0x84, kvm_sregs)
