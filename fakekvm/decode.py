"""Every request number and struct of the interface, decoded here (SEV's in ``sevdecode``) only.

The numbers are spelled out as they cross into the kernel, and the structs are ``struct`` formats
with explicit padding: a caller whose layout is wrong meets a second opinion, not its own.

Source: Linux v6.12, include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm.processmemory import ProcessMemory

T = TypeVar("T")

PAGE_SHIFT = 12
PAGE_BYTES = 1 << PAGE_SHIFT
U16, U32, U64 = (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1

KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_CHECK_EXTENSION = 0xAE03
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_GET_SUPPORTED_CPUID = 0xC008AE05

KVM_CREATE_VCPU = 0xAE41
KVM_GET_DIRTY_LOG = 0x4010AE42
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_TSS_ADDR = 0xAE47
KVM_SET_IDENTITY_MAP_ADDR = 0x4008AE48
KVM_SET_USER_MEMORY_REGION2 = 0x40A0AE49
KVM_ENABLE_CAP = 0x4068AEA3
KVM_CLEAR_DIRTY_LOG = 0xC018AEC0
KVM_RESET_DIRTY_RINGS = 0xAEC7
KVM_SET_MEMORY_ATTRIBUTES = 0x4020AED2
KVM_CREATE_GUEST_MEMFD = 0xC040AED4

KVM_RUN = 0xAE80
KVM_GET_REGS = 0x8090AE81
KVM_SET_REGS = 0x4090AE82
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
KVM_SET_SIGNAL_MASK = 0x4004AE8B

KVM_MEM_LOG_DIRTY_PAGES = 1 << 0
KVM_MEM_READONLY = 1 << 1
KVM_MEM_GUEST_MEMFD = 1 << 2

KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE = 1 << 0
KVM_DIRTY_LOG_INITIALLY_SET = 1 << 1

KVM_DIRTY_GFN_F_DIRTY = 1 << 0
KVM_DIRTY_GFN_F_RESET = 1 << 1
DIRTY_GFN_BYTES = 16
KVM_DIRTY_LOG_PAGE_OFFSET = 64

KVM_MEMORY_ATTRIBUTE_PRIVATE = 1 << 3

KVM_HC_MAP_GPA_RANGE = 12  # the number of the out-of-tree KVM_HC_PAGE_ENC_STATUS, too
KVM_MAP_GPA_RANGE_ENCRYPTED = 1 << 4
KVM_ENOSYS, KVM_EINVAL = 1000, 22  # what a hypercall returns, negated

X86_EFLAGS_FIXED = 1 << 1  # of rflags: always set

KVM_EXIT_IO = 2
KVM_EXIT_HYPERCALL = 3
KVM_EXIT_HLT = 5
KVM_EXIT_MMIO = 6
KVM_EXIT_INTR = 10
KVM_EXIT_DIRTY_RING_FULL = 31

# struct kvm_run: offsets of what the fake reads or writes, and the members of its union
RUN_IMMEDIATE_EXIT, RUN_EXIT_REASON, RUN_UNION, RUN_HYPERCALL_RET = 1, 8, 32, 88
RUN_IO = struct.Struct("<BBHIQ")  # direction, size, port, count, data_offset
RUN_IO_OUT = 1
RUN_IO_DATA = PAGE_BYTES  # the page behind kvm_run
RUN_MMIO = struct.Struct("<QQIB")  # phys_addr, data, len, is_write
RUN_HYPERCALL = struct.Struct("<Q6QQQ")  # nr, args, ret, flags
RUN_HYPERCALL_LONG_MODE = 1

REGS = struct.Struct("<18Q")  # rax rbx rcx rdx rsi rdi rsp rbp r8..r15 rip rflags
_SREGS = struct.Struct("<192s32s7Q32x")  # segments, gdt and idt, cr0 cr2 cr3 cr4 cr8 efer apic_base
_SEGMENT = struct.Struct("<QIH6Bxxxx")  # base limit selector type present dpl db s l; the rest is 0
_TABLE = struct.Struct("<QH6x")  # base limit


class MemoryRegion(NamedTuple):
    """struct kvm_userspace_memory_region2; the last two are 0 where the first struct was used."""

    slot: int
    flags: int
    guest_phys_addr: int
    memory_size: int
    userspace_addr: int
    guest_memfd_offset: int = 0
    guest_memfd: int = 0


class DirtyLog(NamedTuple):
    """struct kvm_dirty_log."""

    slot: int
    dirty_bitmap: int


class ClearDirtyLog(NamedTuple):
    """struct kvm_clear_dirty_log."""

    slot: int
    num_pages: int
    first_page: int
    dirty_bitmap: int


class EnableCap(NamedTuple):
    """struct kvm_enable_cap, of whose four arguments only the first is ever used here."""

    cap: int
    flags: int
    arg: int


class MemoryAttributes(NamedTuple):
    """struct kvm_memory_attributes."""

    address: int
    size: int
    attributes: int
    flags: int


class CreateGuestMemfd(NamedTuple):
    """struct kvm_create_guest_memfd."""

    size: int
    flags: int


class PageEncBitmap(NamedTuple):
    """struct kvm_page_enc_bitmap of the out-of-tree series."""

    start_gfn: int
    num_pages: int
    enc_bitmap: int


class SharedPagesList(NamedTuple):
    """struct kvm_shared_pages_list of the out-of-tree v10."""

    pnents: int
    buffer: int
    size: int


class UnencryptedBitmap(NamedTuple):
    """The argument of the out-of-tree KVM_GET_UNENCRYPTED_BITMAP of 2018."""

    slot: int
    bitmap: int


class Layout(Generic[T]):
    """A struct in the caller's memory."""

    def __init__(self, fmt: str, make: Callable[..., T]) -> None:
        self._struct = struct.Struct(fmt)
        self._make = make

    def read(self, memory: ProcessMemory, address: int) -> T:
        """The struct at ``address``.

        Raises:
            OSError: EFAULT.
        """
        return self._make(*memory.unpack(address, self._struct))

    def write(self, memory: ProcessMemory, address: int, value: tuple[int, ...]) -> None:
        """Store the struct at ``address``, its padding as zeros.

        Raises:
            OSError: EFAULT.
        """
        memory.write(address, self._struct.pack(*value))


MEMORY_REGION = Layout("<IIQQQ", MemoryRegion)
MEMORY_REGION2 = Layout("<IIQQQQI4x112x", MemoryRegion)
DIRTY_LOG = Layout("<I4xQ", DirtyLog)
CLEAR_DIRTY_LOG = Layout("<IIQQ", ClearDirtyLog)
ENABLE_CAP = Layout("<IIQ24x64x", EnableCap)
MEMORY_ATTRIBUTES = Layout("<QQQQ", MemoryAttributes)
CREATE_GUEST_MEMFD = Layout("<QQ48x", CreateGuestMemfd)
PAGE_ENC_BITMAP = Layout("<QQQ", PageEncBitmap)
SHARED_PAGES_LIST = Layout("<QQI4x", SharedPagesList)
UNENCRYPTED_BITMAP = Layout("<I4xQ", UnencryptedBitmap)


def reset_registers() -> list[int]:
    """A struct kvm_regs of a vCPU that was never run."""
    registers = [0] * 18
    registers[3], registers[16], registers[17] = 0x600, 0xFFF0, X86_EFLAGS_FIXED  # rdx, rip, rflags
    return registers


def reset_sregs(vcpu_id: int) -> bytes:
    """A struct kvm_sregs of a vCPU that was never run: real mode at the reset vector."""
    code = _SEGMENT.pack(0xFFFF0000, 0xFFFF, 0xF000, 0xB, 1, 0, 0, 1, 0)
    data = _SEGMENT.pack(0, 0xFFFF, 0, 0x3, 1, 0, 0, 1, 0)
    task = _SEGMENT.pack(0, 0xFFFF, 0, 0xB, 1, 0, 0, 0, 0)
    local = _SEGMENT.pack(0, 0xFFFF, 0, 0x2, 1, 0, 0, 0, 0)
    tables = 2 * _TABLE.pack(0, 0xFFFF)
    cr0, apic_base = 0x60000010, 0xFEE00800 | (vcpu_id == 0) << 8
    return _SREGS.pack(code + 5 * data + task + local, tables, cr0, 0, 0, 0, 0, 0, apic_base)
