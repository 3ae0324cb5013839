"""Where the fake differs from a kernel, knowingly: the one list of it, and how tests live with it.

What is in ``DIFFERENCES`` is either left out of the calls that are compared, or taken out of the
answers, by the functions below; ``test_known_differences`` shows that each is there. Whatever else
differs is a bug of the fake.

Source, where none is named: Linux v6.12; compared with Linux 6.18, whose KVM was PVM's (it emulates
code in real mode).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.fakekvm import raw

if TYPE_CHECKING:
    from tests.fakekvm.raw import Result


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference.

    Attributes:
        what: the kernel's way, then the fake's.
        why: it is left so.
        source: what the kernel's way can be read in.
    """

    what: str
    why: str
    source: str


DIFFERENCES = {
    # -- what the fake has no model of ----------------------------------------------------------
    "other capabilities": Difference(
        "KVM_ENABLE_CAP enables many; in the fake those that dirty logs and encryption need, the "
        "others are EINVAL",
        "they concern interrupts, MSRs, exits of real code",
        "arch/x86/kvm/x86.c, kvm_vm_ioctl_enable_cap",
    ),
    "other requests": Difference(
        "irqchips, MSRs, CPUID of a vCPU, devices, ... are there; the fake refuses them as it "
        "refuses unknown requests",
        "scripts need none of them; Kernel.unknown counts who asks",
        "virt/kvm/kvm_main.c, kvm_vm_ioctl, kvm_vcpu_ioctl",
    ),
    "CPUID": Difference(
        "KVM_GET_SUPPORTED_CPUID tells the CPU's leaves; the fake's a few, which its host has",
        "what is asked of them is what encryption is there",
        "arch/x86/kvm/cpuid.c, kvm_dev_ioctl_get_cpuid",
    ),
    "code": Difference(
        "KVM_RUN executes the guest's code, which changes its registers; the fake's vCPU executes "
        "a script and without one halts, and its registers stay",
        "scripts are what the fake is for",
        "arch/x86/kvm/x86.c, vcpu_run",
    ),
    "segment registers": Difference(
        "KVM_SET_SREGS refuses what no CPU can be in; the fake keeps any bytes",
        "no script depends on them",
        "arch/x86/kvm/x86.c, kvm_is_valid_sregs",
    ),
    "virtual 8086 mode": Difference(
        "rflags can have bit 17; here the kernel drops it, the fake keeps it",
        "its own: no other KVM does so, nor does PVM as it was published",
        "arch/x86/kvm/x86.c, __set_regs, kvm_set_rflags; seen on 6.18 with PVM",
    ),
    "interrupts in kvm_run": Difference(
        "each exit tells if_flag, cr8, apic_base; in the fake they stay 0",
        "there is no interrupt that could be injected",
        "arch/x86/kvm/x86.c, post_kvm_run_save",
    ),
    "one byte": Difference(
        "an MMIO exit tells the size and the bytes that code wrote; a script always writes 8",
        "a step of a script stands for a page, not for an instruction",
        "arch/x86/kvm/x86.c, emulator_read_write",
    ),
    # -- rings ----------------------------------------------------------------------------------
    "rewritten pages in a ring": Difference(
        "hardware tells a page once until it is reset, a KVM that emulates code tells every write; "
        "in the fake the host says which (ring_logs_every_write)",
        "both are right: the ring promises no more than one entry",
        "virt/kvm/dirty_ring.c, kvm_dirty_ring_push; arch/x86/kvm/x86.c, emulator_write_emulated",
    ),
    "past a ring's soft limit": Difference(
        "a vCPU that emulates code may write into the reserved entries before it looks whether the "
        "ring is full; the fake's stops exactly at the limit",
        "how far it goes depends on the kernel's timer; the limit is what is promised",
        "virt/kvm/dirty_ring.c, kvm_dirty_ring_check_request, asked by vcpu_enter_guest only",
    ),
    # -- memory ---------------------------------------------------------------------------------
    "memory that is not there": Difference(
        "a write to a slot whose memory is not mapped is EFAULT, or an MMIO exit where code is "
        "emulated, and the page stays clean; in the fake it is EFAULT, and the page dirty",
        "a page is marked before it is written, so that no interruption can leave a written page "
        "clean",
        "virt/kvm/kvm_main.c, __kvm_write_guest_page",
    ),
    "guest_memfd": Difference(
        "it holds memory, can be mapped, and guests write to it; the fake's holds none",
        "it has no dirty log, so that no migration here can read it",
        "virt/kvm/guest_memfd.c",
    ),
    "running out of memory": Difference(
        "ENOMEM for slots of terabytes; the fake has no limit but its own memory",
        "where it comes depends on the machine",
        "arch/x86/kvm/x86.c, kvm_alloc_memslot_metadata",
    ),
    # -- descriptors ----------------------------------------------------------------------------
    "a vCPU's mapping": Difference(
        "a private mapping of a dirty ring is EINVAL; in the fake it is a mapping of a memory file",
        "the fake is not asked when a program maps",
        "virt/kvm/kvm_main.c, kvm_vcpu_mmap",
    ),
    "executable mappings": Difference(
        "ENODEV for /dev/kvm and VMs, EPERM or EINVAL for vCPUs; the fake's descriptors answer as "
        "eventfds and memory files do",
        "the fake is not asked when a program maps, and no program maps KVM's files for execution",
        "mm/mmap.c, do_mmap: path_noexec",
    ),
    "other system calls": Difference(
        "read and write are EINVAL, poll is always ready, FIOCLEX and its like are the file "
        "system's; under the fake's numbers there are eventfds and memory files, and Kernel.ioctl "
        "refuses requests that are not KVM's",
        "a program makes those calls on the descriptor, which is a real one",
        "virt/kvm/kvm_main.c, kvm_vm_fops; fs/ioctl.c, do_vfs_ioctl",
    ),
    "duplicated descriptors": Difference(
        "dup() gives one more descriptor of the same file; Kernel answers EBADF for it",
        "it is not told of dup(); a program under `fakekvm run` has no such limit",
        "fs/file.c, ksys_dup",
    ),
}

# -- what is left out ---------------------------------------------------------------------------

#: "other capabilities" that this machine's kernel can enable are not: some change what exits.
NEVER_ENABLED_CAPABILITIES = (0, 1, 3, 10, 16, 66, 81, 105, 166, 225, 231, 233, 234, 9999, 1 << 31)

MAP_SHARED, PROT_EXEC = 1, 4

#: "other requests" whose numbers the fake has for other files.
OTHER_REQUESTS = (("vcpu", raw.ENABLE_CAP),)

#: Calls that succeed with a descriptor, which is not the same number for both.
RETURNING_DESCRIPTORS = (
    ("system", raw.CREATE_VM),
    ("vm", raw.CREATE_VCPU),
    ("vm", raw.CREATE_GUEST_MEMFD),
)


def write_is_left_out(flags: int, has_memory: bool) -> bool:
    """Of guests, to a slot: "guest_memfd", "memory that is not there"."""
    return bool(flags & raw.GUEST_MEMFD) or not has_memory


def call_is_left_out(kind: str, request: int, argument: object) -> bool:
    """Of a file of this kind: "other requests"; "code", where none was loaded."""
    return (kind, request) in OTHER_REQUESTS or (kind, request, argument) == ("vcpu", raw.RUN, 0)


def registers_are_left_out(request: int, is_fresh: bool) -> bool:
    """Of a vCPU that was run, which KVM_SET_REGS has not set again: "code"."""
    return request in (raw.GET_REGS, raw.GET_SREGS) and not is_fresh


def mapping_is_left_out(kind: str, protection: int, flags: int) -> bool:
    """Of a file of this kind: "guest_memfd", "executable mappings", "a vCPU's mapping"."""
    if kind == "guest_memfd" or protection & PROT_EXEC:
        return True
    return kind == "vcpu" and flags != MAP_SHARED


# -- what is taken out of answers -----------------------------------------------------------------

EXIT_HLT, EXIT_MMIO, EXIT_RING_FULL = 5, 6, 31
LAST_EXITS = (EXIT_HLT, EXIT_RING_FULL)
VM86 = 1 << 17


def exit_told(result: Result, run_page: bytes) -> tuple[Result, int, *tuple[int, ...]]:
    """What KVM_RUN returned and told, but for "interrupts in kvm_run" and "one byte"."""
    reason = int.from_bytes(run_page[8:12], "little")
    if reason != EXIT_MMIO or result != 0:
        return (result, reason)
    phys_addr, data, _length, is_write = struct.unpack_from("<QQIB", run_page, 32)
    return (result, reason, phys_addr, data & 0xFF, is_write)


def registers_set(rflags: int) -> int:
    """What is set, but for "virtual 8086 mode"."""
    return rflags & ~VM86
