"""Capabilities (KVM_CHECK_EXTENSION, KVM_ENABLE_CAP) and the bits of their values.

Source: Linux v6.12, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h; each capability
is described in Documentation/virt/kvm/api.rst, sections 6 to 8.
"""

KVM_CAP_USER_MEMORY = 3
KVM_CAP_SET_TSS_ADDR = 4
KVM_CAP_NR_VCPUS = 9
KVM_CAP_NR_MEMSLOTS = 10  # value: how many memslots a VM may have
KVM_CAP_SYNC_MMU = 16
KVM_CAP_SET_IDENTITY_MAP_ADDR = 37
KVM_CAP_MAX_VCPUS = 66
KVM_CAP_READONLY_MEM = 81
KVM_CAP_ENABLE_CAP_VM = 98
KVM_CAP_CHECK_EXTENSION_VM = 105
KVM_CAP_X86_SMM = 117
KVM_CAP_MULTI_ADDRESS_SPACE = 118  # value: how many; 0 and 1 both mean one
KVM_CAP_IMMEDIATE_EXIT = 136
KVM_CAP_X86_USER_SPACE_MSR = 188
KVM_CAP_X86_MSR_FILTER = 189
KVM_CAP_BINARY_STATS_FD = 203
KVM_CAP_X86_GUEST_MODE = 238

# Dirty log
KVM_CAP_MANUAL_DIRTY_LOG_PROTECT = 166  # obsolete: its first version was broken
KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168  # value: a mask of the next two
KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1 << 0
KVM_DIRTY_LOG_INITIALLY_SET = 1 << 1
KVM_CAP_DIRTY_LOG_RING = 192  # value: a ring's greatest size in bytes
KVM_CAP_DIRTY_LOG_RING_ACQ_REL = 223  # likewise
KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP = 225

# Encrypted and private memory. The two ENC_CONTEXT ones are 1 on every x86, with or without SEV.
KVM_CAP_VM_COPY_ENC_CONTEXT_FROM = 197
KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM = 206
KVM_CAP_EXIT_HYPERCALL = 201  # value: a mask, bit n for hypercall n
KVM_CAP_USER_MEMORY2 = 231
KVM_CAP_MEMORY_FAULT_INFO = 232
KVM_CAP_MEMORY_ATTRIBUTES = 233  # value: a mask of KVM_MEMORY_ATTRIBUTE_
KVM_CAP_GUEST_MEMFD = 234
KVM_CAP_VM_TYPES = 235  # value: a mask, bit n for VM type n
KVM_CAP_PRE_FAULT_MEMORY = 236
KVM_CAP_GUEST_MEMFD_FLAGS = 244  # since v6.18; value: a mask of GUEST_MEMFD_FLAG_

# Why an MSR access came to userspace: args[0] of KVM_CAP_X86_USER_SPACE_MSR, kvm_run.msr.reason
KVM_MSR_EXIT_REASON_INVAL = 1 << 0
KVM_MSR_EXIT_REASON_UNKNOWN = 1 << 1
KVM_MSR_EXIT_REASON_FILTER = 1 << 2
