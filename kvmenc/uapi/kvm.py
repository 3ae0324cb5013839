"""ioctls of /dev/kvm and of a VM, with their structs. Those of a vCPU are in ``vcpu``.

Source: Linux v6.12, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h, unless a later
tag is named. Meanings and errors: Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import ctypes

from kvmenc.uapi.cstruct import Struct, u8x64, u32, u32x3, u64, u64x4, u64x6, u64x14
from kvmenc.uapi.ioc import _IO, _IOR, _IOW, _IOWR

KVMIO = 0xAE
KVM_API_VERSION = 12


# /dev/kvm --------------------------------------------------------------------------------------

KVM_GET_API_VERSION = _IO("KVM_GET_API_VERSION", KVMIO, 0x00)
KVM_CREATE_VM = _IO("KVM_CREATE_VM", KVMIO, 0x01)  # argument: a VM type; returns a VM fd
KVM_CHECK_EXTENSION = _IO("KVM_CHECK_EXTENSION", KVMIO, 0x03)  # argument: a KVM_CAP_; also on a VM
KVM_GET_VCPU_MMAP_SIZE = _IO("KVM_GET_VCPU_MMAP_SIZE", KVMIO, 0x04)

# VM types, and the bits of KVM_CAP_VM_TYPES
KVM_X86_DEFAULT_VM = 0
KVM_X86_SW_PROTECTED_VM = 1
KVM_X86_SEV_VM = 2
KVM_X86_SEV_ES_VM = 3
KVM_X86_SNP_VM = 4
KVM_X86_TDX_VM = 5  # since v6.16


class kvm_cpuid_entry2(Struct):
    """One CPUID leaf."""

    function: u32
    index: u32
    flags: u32
    eax: u32
    ebx: u32
    ecx: u32
    edx: u32
    padding: u32x3


class kvm_cpuid2(Struct):
    """Head of a table: ``nent`` entries of kvm_cpuid_entry2 follow it in memory."""

    nent: u32
    padding: u32


KVM_CPUID_FLAG_SIGNIFCANT_INDEX = 1 << 0  # the kernel's spelling

KVM_GET_SUPPORTED_CPUID = _IOWR("KVM_GET_SUPPORTED_CPUID", KVMIO, 0x05, kvm_cpuid2)


# VM: memslots ----------------------------------------------------------------------------------


class kvm_userspace_memory_region(Struct):
    """A memslot. ``slot`` holds the address space in its upper 16 bits; sizes are bytes."""

    slot: u32
    flags: u32
    guest_phys_addr: u64
    memory_size: u64
    userspace_addr: u64


class kvm_userspace_memory_region2(Struct):
    """The same with a guest_memfd behind it (since v6.8)."""

    slot: u32
    flags: u32
    guest_phys_addr: u64
    memory_size: u64
    userspace_addr: u64
    guest_memfd_offset: u64
    guest_memfd: u32
    pad1: u32
    pad2: u64x14


KVM_MEM_LOG_DIRTY_PAGES = 1 << 0
KVM_MEM_READONLY = 1 << 1
KVM_MEM_GUEST_MEMFD = 1 << 2  # refused together with KVM_MEM_LOG_DIRTY_PAGES

KVM_CREATE_VCPU = _IO("KVM_CREATE_VCPU", KVMIO, 0x41)
KVM_SET_USER_MEMORY_REGION = _IOW(
    "KVM_SET_USER_MEMORY_REGION", KVMIO, 0x46, kvm_userspace_memory_region
)
KVM_SET_TSS_ADDR = _IO("KVM_SET_TSS_ADDR", KVMIO, 0x47)
KVM_SET_IDENTITY_MAP_ADDR = _IOW("KVM_SET_IDENTITY_MAP_ADDR", KVMIO, 0x48, ctypes.c_uint64)
KVM_SET_USER_MEMORY_REGION2 = _IOW(
    "KVM_SET_USER_MEMORY_REGION2", KVMIO, 0x49, kvm_userspace_memory_region2
)


# VM: dirty log ---------------------------------------------------------------------------------


class kvm_dirty_log(Struct):
    """Asks for one slot's dirty bits.

    ``dirty_bitmap`` is the address of ALIGN(pages, 64) / 8 bytes: the kernel writes whole 64-bit
    words (v6.12, virt/kvm/kvm_main.c, kvm_get_dirty_log_protect).
    """

    slot: u32
    padding1: u32
    dirty_bitmap: u64


class kvm_clear_dirty_log(Struct):
    """Clears bits of one slot; bit 0 of the bitmap is ``first_page``, a multiple of 64."""

    slot: u32
    num_pages: u32
    first_page: u64
    dirty_bitmap: u64


KVM_GET_DIRTY_LOG = _IOW("KVM_GET_DIRTY_LOG", KVMIO, 0x42, kvm_dirty_log)
KVM_CLEAR_DIRTY_LOG = _IOWR("KVM_CLEAR_DIRTY_LOG", KVMIO, 0xC0, kvm_clear_dirty_log)


class kvm_dirty_gfn(Struct):
    """An entry of a vCPU's dirty ring; ``offset`` is a page within the slot."""

    flags: u32
    slot: u32
    offset: u64


KVM_DIRTY_GFN_F_DIRTY = 1 << 0
KVM_DIRTY_GFN_F_RESET = 1 << 1
KVM_DIRTY_GFN_F_MASK = 0x3
KVM_DIRTY_LOG_PAGE_OFFSET = 64  # where the ring starts in a vCPU fd, in pages (x86)

KVM_RESET_DIRTY_RINGS = _IO("KVM_RESET_DIRTY_RINGS", KVMIO, 0xC7)


# VM: capabilities, statistics ------------------------------------------------------------------


class kvm_enable_cap(Struct):
    """Enables a capability; what ``args`` hold depends on it (see ``caps``)."""

    cap: u32
    flags: u32
    args: u64x4
    pad: u8x64


KVM_ENABLE_CAP = _IOW("KVM_ENABLE_CAP", KVMIO, 0xA3, kvm_enable_cap)
KVM_GET_STATS_FD = _IO("KVM_GET_STATS_FD", KVMIO, 0xCE)


# VM: encrypted and private memory --------------------------------------------------------------


class kvm_enc_region(Struct):
    """Host memory that may hold ciphertext and must therefore stay where it is."""

    addr: u64
    size: u64


KVM_MEMORY_ENCRYPT_OP = _IOWR("KVM_MEMORY_ENCRYPT_OP", KVMIO, 0xBA, ctypes.c_ulong)  # see ``sev``
KVM_MEMORY_ENCRYPT_REG_REGION = _IOR("KVM_MEMORY_ENCRYPT_REG_REGION", KVMIO, 0xBB, kvm_enc_region)
KVM_MEMORY_ENCRYPT_UNREG_REGION = _IOR(
    "KVM_MEMORY_ENCRYPT_UNREG_REGION", KVMIO, 0xBC, kvm_enc_region
)


class kvm_memory_attributes(Struct):
    """Sets the attributes of a guest physical range, in bytes. Nothing reads them back."""

    address: u64
    size: u64
    attributes: u64
    flags: u64


KVM_MEMORY_ATTRIBUTE_PRIVATE = 1 << 3

KVM_SET_MEMORY_ATTRIBUTES = _IOW("KVM_SET_MEMORY_ATTRIBUTES", KVMIO, 0xD2, kvm_memory_attributes)


class kvm_create_guest_memfd(Struct):
    """Memory that only the guest maps; ``size`` in bytes."""

    size: u64
    flags: u64
    reserved: u64x6


GUEST_MEMFD_FLAG_MMAP = 1 << 0  # since v6.18
GUEST_MEMFD_FLAG_INIT_SHARED = 1 << 1  # since v6.18

KVM_CREATE_GUEST_MEMFD = _IOWR("KVM_CREATE_GUEST_MEMFD", KVMIO, 0xD4, kvm_create_guest_memfd)
