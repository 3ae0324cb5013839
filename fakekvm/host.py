"""What kind of machine the fake is: what its KVM has, and what it refuses.

A capability that is 0 takes its ioctls with it, as on a kernel that was built without them.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from fakekvm.revisions import REVISIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MAINLINE_CAPABILITIES", "FirmwareSpeed", "Host", "host_named", "host_names"]

CAP_NR_MEMSLOTS = 10
CAP_MAX_VCPUS = 66
CAP_X86_SMM = 117
CAP_MULTI_ADDRESS_SPACE = 118
CAP_MAX_VCPU_ID = 128
CAP_MANUAL_DIRTY_LOG_PROTECT2 = 168
CAP_DIRTY_LOG_RING = 192
CAP_VM_COPY_ENC_CONTEXT_FROM = 197
CAP_EXIT_HYPERCALL = 201
CAP_VM_MOVE_ENC_CONTEXT_FROM = 206
CAP_DIRTY_LOG_RING_ACQ_REL = 223
CAP_DIRTY_LOG_RING_WITH_BITMAP = 225
CAP_USER_MEMORY2 = 231
CAP_MEMORY_FAULT_INFO = 232
CAP_MEMORY_ATTRIBUTES = 233
CAP_GUEST_MEMFD = 234
CAP_VM_TYPES = 235
CAP_GUEST_MEMFD_FLAGS = 244

VM_DEFAULT, VM_SW_PROTECTED, VM_SEV, VM_SEV_ES, VM_SNP = range(5)

MAINLINE_CAPABILITIES: Mapping[int, int] = MappingProxyType(
    {
        1: 1,  # HLT
        3: 1,  # USER_MEMORY
        4: 1,  # SET_TSS_ADDR
        9: 2,  # NR_VCPUS
        CAP_NR_MEMSLOTS: 32764,
        16: 1,  # SYNC_MMU
        21: 1,  # DESTROY_MEMORY_REGION_WORKS
        30: 1,  # JOIN_MEMORY_REGIONS_WORKS
        37: 1,  # SET_IDENTITY_MAP_ADDR
        CAP_MAX_VCPUS: 1024,
        81: 1,  # READONLY_MEM
        98: 1,  # ENABLE_CAP_VM
        105: 1,  # CHECK_EXTENSION_VM
        CAP_MAX_VCPU_ID: 4096,
        136: 1,  # IMMEDIATE_EXIT
        CAP_MANUAL_DIRTY_LOG_PROTECT2: 3,
        188: 1,  # X86_USER_SPACE_MSR
        189: 1,  # X86_MSR_FILTER
        CAP_DIRTY_LOG_RING: 1 << 20,
        CAP_VM_COPY_ENC_CONTEXT_FROM: 1,
        CAP_EXIT_HYPERCALL: 1 << 12,
        203: 1,  # BINARY_STATS_FD
        CAP_VM_MOVE_ENC_CONTEXT_FROM: 1,
        CAP_DIRTY_LOG_RING_ACQ_REL: 1 << 20,
        CAP_USER_MEMORY2: 1,
        CAP_MEMORY_FAULT_INFO: 1,
        CAP_GUEST_MEMFD: 1,
        CAP_VM_TYPES: 1 << VM_DEFAULT,
        238: 1,  # X86_GUEST_MODE
        CAP_GUEST_MEMFD_FLAGS: 3,
    }
)
"""A mainline x86-64 host without SEV: what Linux 6.18 answers, measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FirmwareSpeed:
    """Pages that the SEV firmware takes a second; 0: as quick as the fake is.

    Attributes:
        send: by SEND_UPDATE_DATA.
        receive: by RECEIVE_UPDATE_DATA.
        batch: in one command for many pages, either way.
    """

    send: float = 0.0
    receive: float = 0.0
    batch: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """One kind of machine. The default is a mainline host without SEV.

    Attributes:
        capabilities: value by ``KVM_CAP_`` number; what is not in it is 0.
        open_errno: what opening /dev/kvm fails with; 0 opens it.
        sev: KVM_MEMORY_ENCRYPT_OP and /dev/sev are there, and to the encryption bitmap all VMs are
            SEV guests.
        csv: it is Hygon's: KVM_CSV_COMMAND_BATCH is there too.
        chip: its name; the firmware's keys and certificates follow from it.
        firmware: how quick the SEV firmware is.
        clear_memory: private pages lie in memory as they are, since the CPU has no keys: as where
            a guest runs on another KVM. What is launched is measured, and what is sent or received
            is encrypted for the way, all the same.
        vendor: of the CPU, as CPUID spells it; "": as ``csv`` and ``sev`` suggest, else Intel's.
        enc_revision: which out-of-tree encryption state ioctl it has (see ``revisions``).
        max_gpa_bits: guest physical addresses end here (52 with shadow paging, else the CPU's).
        ring_reserved_entries: ring entries that KVM keeps for itself: 64, and 512 more on CPUs with
            Page Modification Logging.
        ring_logs_every_write: a page written again before its entry was reset gets a second entry.
            Hardware logs a page once, until it is reset; hosts that emulate guest code (real mode
            without unrestricted guests, KVM without SVM or VMX) log every write.
    """

    capabilities: Mapping[int, int] = field(default_factory=lambda: MAINLINE_CAPABILITIES)
    open_errno: int = 0
    sev: bool = False
    csv: bool = False
    chip: str = "chip 0"
    firmware: FirmwareSpeed = field(default_factory=FirmwareSpeed)
    clear_memory: bool = False
    vendor: str = ""
    enc_revision: str | None = None
    max_gpa_bits: int = 52
    ring_reserved_entries: int = 64
    ring_logs_every_write: bool = False

    def has(self, capability: int) -> int:
        """The value of a capability, as KVM_CHECK_EXTENSION on /dev/kvm tells it."""
        return self.capabilities.get(capability, 0)

    def allows_vm_type(self, vm_type: int) -> bool:
        """Whether KVM_CREATE_VM accepts this type (kernels before v6.8 know type 0 only)."""
        types = self.has(CAP_VM_TYPES) or 1 << VM_DEFAULT
        return bool(types >> vm_type & 1)


def _without(*capabilities: int) -> Mapping[int, int]:
    kept = {n: v for n, v in MAINLINE_CAPABILITIES.items() if n not in capabilities}
    return MappingProxyType(kept)


def _out_of_tree(revision: str) -> Host:
    """A host whose kernel carries one of the posted series, and nothing that came after them."""
    capabilities = _without(
        CAP_DIRTY_LOG_RING,
        CAP_DIRTY_LOG_RING_ACQ_REL,
        CAP_EXIT_HYPERCALL,
        CAP_VM_COPY_ENC_CONTEXT_FROM,
        CAP_VM_MOVE_ENC_CONTEXT_FROM,
        CAP_USER_MEMORY2,
        CAP_MEMORY_FAULT_INFO,
        CAP_GUEST_MEMFD,
        CAP_GUEST_MEMFD_FLAGS,
        CAP_VM_TYPES,
    )
    return Host(capabilities=capabilities, sev=True, enc_revision=revision)


def _with_vm_types(*types: int) -> Host:
    mask = sum(1 << vm_type for vm_type in types)
    private = {CAP_MEMORY_ATTRIBUTES: 8} if {VM_SW_PROTECTED, VM_SNP} & set(types) else {}
    capabilities = MappingProxyType({**MAINLINE_CAPABILITIES, CAP_VM_TYPES: mask, **private})
    return Host(capabilities=capabilities)


# What kvm_amd answers on EPYC 7002 and later; 7001 had SEV only. Source: Linux v6.12,
# arch/x86/kvm/svm/sev.c, sev_hardware_setup and sev_set_cpu_caps (KVM_CAP_VM_TYPES).
_SEV_ES = replace(_with_vm_types(VM_DEFAULT, VM_SEV, VM_SEV_ES), sev=True)


def _bare_metal(vendor: str, gpa_bits: int, logged_by_hardware: int) -> Host:
    """A host with SVM or VMX and SMM, none of which the machine had that mainline's come from.

    Source: Linux v6.12, arch/x86/kvm/x86.c, kvm_vm_ioctl_check_extension, KVM_CAP_X86_SMM;
    arch/x86/include/asm/kvm_host.h, kvm_arch_nr_memslot_as_ids; arch/x86/kvm/mmu.h,
    kvm_mmu_max_gfn (46 bits: Xeons up to Cascade Lake; 48: EPYC 7001 to 7003);
    virt/kvm/dirty_ring.c, kvm_dirty_ring_get_rsvd_entries; arch/x86/kvm/vmx/vmx.h, PML_ENTITY_NUM.
    """
    smm = {CAP_X86_SMM: 1, CAP_MULTI_ADDRESS_SPACE: 2}
    return Host(
        capabilities=MappingProxyType({**MAINLINE_CAPABILITIES, **smm}),
        vendor=vendor,
        max_gpa_bits=gpa_bits,
        ring_reserved_entries=64 + logged_by_hardware,
    )


_HOSTS = {
    "mainline": Host(),
    "intel": _bare_metal("GenuineIntel", gpa_bits=46, logged_by_hardware=512),
    "amd": _bare_metal("AuthenticAMD", gpa_bits=48, logged_by_hardware=0),
    "no-kvm": Host(open_errno=errno.ENOENT),
    "no-rights": Host(open_errno=errno.EACCES),
    "sw-protected": _with_vm_types(VM_DEFAULT, VM_SW_PROTECTED),
    "sev-without-es": replace(_with_vm_types(VM_DEFAULT, VM_SEV), sev=True),
    "sev": _SEV_ES,
    "sev-es": _SEV_ES,
    "snp": replace(
        _with_vm_types(VM_DEFAULT, VM_SW_PROTECTED, VM_SEV, VM_SEV_ES, VM_SNP), sev=True
    ),
    "csv": replace(_SEV_ES, csv=True),
    **{f"sev-{revision}": _out_of_tree(revision) for revision in REVISIONS},
}


def host_names() -> list[str]:
    """The names that ``host_named`` knows."""
    return list(_HOSTS)


def host_named(name: str) -> Host:
    """A ready-made host: ``mainline``, ``no-kvm``, ``sev``, ``sev-2019``, ...

    Raises:
        KeyError: there is none of that name; the message lists those there are.
    """
    if name not in _HOSTS:
        msg = f"no host is called {name!r}; there are {', '.join(_HOSTS)}"
        raise KeyError(msg)
    return _HOSTS[name]
