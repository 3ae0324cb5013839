"""What KVM and its guest say to each other: hypercalls, feature bits, MSRs.

Source: Linux v6.12, include/uapi/linux/kvm_para.h and arch/x86/include/uapi/asm/kvm_para.h;
Documentation/virt/kvm/x86/hypercalls.rst and msr.rst.
"""

# The guest says that a range of pages is now encrypted or plain. a0: guest physical address,
# a1: number of 4 KiB pages, a2: the attributes below.
KVM_HC_MAP_GPA_RANGE = 12

KVM_MAP_GPA_RANGE_PAGE_SZ_4K = 0
KVM_MAP_GPA_RANGE_PAGE_SZ_2M = 1 << 0
KVM_MAP_GPA_RANGE_PAGE_SZ_1G = 1 << 1
KVM_MAP_GPA_RANGE_ENCRYPTED = 1 << 4
KVM_MAP_GPA_RANGE_DECRYPTED = 0 << 4

KVM_ENOSYS = 1000  # a hypercall's answer (negated) when userspace did not ask for the exit

KVM_CPUID_SIGNATURE = 0x40000000
KVM_CPUID_FEATURES = 0x40000001
KVM_FEATURE_HC_MAP_GPA_RANGE = 16
KVM_FEATURE_MIGRATION_CONTROL = 17

MSR_KVM_MIGRATION_CONTROL = 0x4B564D08
KVM_MIGRATION_READY = 1 << 0
