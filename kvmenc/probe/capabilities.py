"""What KVM_CHECK_EXTENSION says, with the meaning of each value.

Source of the meanings: Linux v6.12, Documentation/virt/kvm/api.rst, and arch/x86/kvm/x86.c,
kvm_vm_ioctl_check_extension.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.probe.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvmenc.kvm import KvmSystem

__all__ = ["capabilities", "vm_type_names"]

_VM_TYPES = ("default", "SW_PROTECTED", "SEV", "SEV_ES", "SNP", "TDX")


def vm_type_names(mask: int) -> list[str]:
    """The VM types of KVM_CAP_VM_TYPES' mask: ``vm_type_names(5) == ["default", "SEV"]``."""
    return [
        _VM_TYPES[bit] if bit < len(_VM_TYPES) else f"type {bit}"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    ]


def _present(text: str) -> Callable[[int], str]:
    return lambda value: text if value else f"not here: {text}"


def _manual_protect(value: int) -> str:
    if not value & uapi.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE:
        return "reading a dirty log clears it"
    starts = ", and it can start all dirty" if value & uapi.KVM_DIRTY_LOG_INITIALLY_SET else ""
    return f"a dirty log can be read without clearing it{starts}"


def _ring(value: int) -> str:
    return f"dirty rings of up to {value // 16} entries a vCPU" if value else "no dirty ring"


def _exit_hypercall(value: int) -> str:
    if value >> uapi.KVM_HC_MAP_GPA_RANGE & 1:
        return "a VMM may be told of flips; on every x86, so it says nothing of SEV"
    return "a VMM is not told of flips"


def _attributes(value: int) -> str:
    if value & uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE:
        return "private/shared is kept per gfn, but cannot be read back: the VMM must track it"
    return "no private/shared attribute per gfn"


_MEANINGS: tuple[tuple[str, Callable[[int], str]], ...] = (
    ("KVM_CAP_NR_MEMSLOTS", lambda value: f"up to {value} memslots"),
    ("KVM_CAP_MULTI_ADDRESS_SPACE", lambda value: f"{max(value, 1)} address space(s), 2 with SMM"),
    ("KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", _manual_protect),
    (
        "KVM_CAP_MANUAL_DIRTY_LOG_PROTECT",
        lambda value: (
            "the broken first version: not used" if value else "as it should be: obsolete"
        ),
    ),
    ("KVM_CAP_DIRTY_LOG_RING", _ring),
    ("KVM_CAP_DIRTY_LOG_RING_ACQ_REL", _ring),
    (
        "KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP",
        lambda value: "ring needs a bitmap too" if value else "ring alone is whole (as on x86)",
    ),
    (
        "KVM_CAP_VM_COPY_ENC_CONTEXT_FROM",
        lambda _: "1 on every x86: says nothing of SEV",
    ),
    (
        "KVM_CAP_VM_MOVE_ENC_CONTEXT_FROM",
        lambda _: "1 on every x86: says nothing of SEV",
    ),
    ("KVM_CAP_EXIT_HYPERCALL", _exit_hypercall),
    ("KVM_CAP_X86_USER_SPACE_MSR", _present("a VMM can answer MSRs: migration control needs it")),
    ("KVM_CAP_X86_MSR_FILTER", _present("MSR filter: migration control needs it")),
    ("KVM_CAP_USER_MEMORY2", _present("memslots with guest_memfd")),
    ("KVM_CAP_MEMORY_FAULT_INFO", _present("KVM_RUN says which access was refused")),
    ("KVM_CAP_MEMORY_ATTRIBUTES", _attributes),
    ("KVM_CAP_GUEST_MEMFD", _present("private memory in guest_memfd: it has no dirty log")),
    ("KVM_CAP_GUEST_MEMFD_FLAGS", lambda value: f"flags of guest_memfd: {value:#x}"),
    (
        "KVM_CAP_VM_TYPES",
        lambda value: "VM types: " + (", ".join(vm_type_names(value)) or "untold"),
    ),
    ("KVM_CAP_PRE_FAULT_MEMORY", _present("guest memory can be mapped before it is touched")),
    ("KVM_CAP_X86_GUEST_MODE", _present("KVM_RUN tells whether a nested guest ran")),
    ("KVM_CAP_BINARY_STATS_FD", _present("KVM's counters can be read from a file descriptor")),
)


def capabilities(system: KvmSystem) -> Iterator[Evidence]:
    """Each capability that bears on dirty and private pages."""
    for name, meaning in _MEANINGS:
        number = getattr(uapi, name)
        value = system.check_extension(number)
        yield Evidence(name, f"{value:#x}", f"KVM_CHECK_EXTENSION({number})", meaning(value))
