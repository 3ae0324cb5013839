"""ioctls that kvmenc never issues: their names only, for recordings of programs that do.

Source: Linux v6.1, include/uapi/linux/kvm.h, as on x86.
"""

from __future__ import annotations

from kvmenc.uapi.ioc import ioc_number
from kvmenc.uapi.kvm import KVMIO

__all__ = ["NAMES"]

_NONE, _IN, _OUT, _BOTH = 0, 1, 2, 3

#: Names by number: which way the struct goes, the number within the type, the struct's bytes.
NAMES = {
    ioc_number(way, KVMIO, nr, nbytes): name
    for way, nr, nbytes, name in (
        (_BOTH, 0x02, 4, "KVM_GET_MSR_INDEX_LIST"),
        (_BOTH, 0x09, 8, "KVM_GET_EMULATED_CPUID"),
        (_BOTH, 0x0A, 4, "KVM_GET_MSR_FEATURE_INDEX_LIST"),
        (_NONE, 0x60, 0, "KVM_CREATE_IRQCHIP"),
        (_IN, 0x61, 8, "KVM_IRQ_LINE"),
        (_BOTH, 0x62, 520, "KVM_GET_IRQCHIP"),
        (_OUT, 0x63, 520, "KVM_SET_IRQCHIP"),
        (_IN, 0x67, 16, "KVM_REGISTER_COALESCED_MMIO"),
        (_BOTH, 0x67, 8, "KVM_IRQ_LINE_STATUS"),
        (_IN, 0x68, 16, "KVM_UNREGISTER_COALESCED_MMIO"),
        (_IN, 0x6A, 8, "KVM_SET_GSI_ROUTING"),
        (_NONE, 0x71, 0, "KVM_REINJECT_CONTROL"),
        (_IN, 0x76, 32, "KVM_IRQFD"),
        (_IN, 0x77, 64, "KVM_CREATE_PIT2"),
        (_NONE, 0x78, 0, "KVM_SET_BOOT_CPU_ID"),
        (_IN, 0x79, 64, "KVM_IOEVENTFD"),
        (_IN, 0x7A, 56, "KVM_XEN_HVM_CONFIG"),
        (_IN, 0x7B, 48, "KVM_SET_CLOCK"),
        (_OUT, 0x7C, 48, "KVM_GET_CLOCK"),
        (_BOTH, 0x88, 8, "KVM_GET_MSRS"),
        (_IN, 0x89, 8, "KVM_SET_MSRS"),
        (_OUT, 0x8C, 416, "KVM_GET_FPU"),
        (_IN, 0x8D, 416, "KVM_SET_FPU"),
        (_OUT, 0x8E, 1024, "KVM_GET_LAPIC"),
        (_IN, 0x8F, 1024, "KVM_SET_LAPIC"),
        (_BOTH, 0x91, 8, "KVM_GET_CPUID2"),
        (_BOTH, 0x92, 40, "KVM_TPR_ACCESS_REPORTING"),
        (_IN, 0x93, 8, "KVM_SET_VAPIC_ADDR"),
        (_OUT, 0x98, 4, "KVM_GET_MP_STATE"),
        (_IN, 0x99, 4, "KVM_SET_MP_STATE"),
        (_NONE, 0x9A, 0, "KVM_NMI"),
        (_IN, 0x9B, 72, "KVM_SET_GUEST_DEBUG"),
        (_IN, 0x9C, 8, "KVM_X86_SETUP_MCE"),
        (_OUT, 0x9D, 8, "KVM_X86_GET_MCE_CAP_SUPPORTED"),
        (_IN, 0x9E, 64, "KVM_X86_SET_MCE"),
        (_OUT, 0x9F, 112, "KVM_GET_PIT2"),
        (_OUT, 0x9F, 64, "KVM_GET_VCPU_EVENTS"),
        (_IN, 0xA0, 112, "KVM_SET_PIT2"),
        (_IN, 0xA0, 64, "KVM_SET_VCPU_EVENTS"),
        (_OUT, 0xA1, 128, "KVM_GET_DEBUGREGS"),
        (_NONE, 0xA2, 0, "KVM_SET_TSC_KHZ"),
        (_IN, 0xA2, 128, "KVM_SET_DEBUGREGS"),
        (_NONE, 0xA3, 0, "KVM_GET_TSC_KHZ"),
        (_OUT, 0xA4, 4096, "KVM_GET_XSAVE"),
        (_IN, 0xA5, 4096, "KVM_SET_XSAVE"),
        (_IN, 0xA5, 32, "KVM_SIGNAL_MSI"),
        (_OUT, 0xA6, 392, "KVM_GET_XCRS"),
        (_IN, 0xA7, 392, "KVM_SET_XCRS"),
        (_NONE, 0xAD, 0, "KVM_KVMCLOCK_CTRL"),
        (_IN, 0xB2, 32, "KVM_SET_PMU_EVENT_FILTER"),
        (_NONE, 0xB7, 0, "KVM_SMI"),
        (_IN, 0xBD, 24, "KVM_HYPERV_EVENTFD"),
        (_BOTH, 0xBE, 128, "KVM_GET_NESTED_STATE"),
        (_IN, 0xBF, 128, "KVM_SET_NESTED_STATE"),
        (_BOTH, 0xC1, 8, "KVM_GET_SUPPORTED_HV_CPUID"),
        (_IN, 0xC6, 392, "KVM_X86_SET_MSR_FILTER"),
        (_BOTH, 0xC8, 72, "KVM_XEN_HVM_GET_ATTR"),
        (_IN, 0xC9, 72, "KVM_XEN_HVM_SET_ATTR"),
        (_BOTH, 0xCA, 72, "KVM_XEN_VCPU_GET_ATTR"),
        (_IN, 0xCB, 72, "KVM_XEN_VCPU_SET_ATTR"),
        (_OUT, 0xCC, 320, "KVM_GET_SREGS2"),
        (_IN, 0xCD, 320, "KVM_SET_SREGS2"),
        (_OUT, 0xCF, 4096, "KVM_GET_XSAVE2"),
        (_IN, 0xD0, 12, "KVM_XEN_HVM_EVTCHN_SEND"),
        (_BOTH, 0xE0, 12, "KVM_CREATE_DEVICE"),
        (_IN, 0xE1, 24, "KVM_SET_DEVICE_ATTR"),
        (_IN, 0xE2, 24, "KVM_GET_DEVICE_ATTR"),
        (_IN, 0xE3, 24, "KVM_HAS_DEVICE_ATTR"),
    )
}
