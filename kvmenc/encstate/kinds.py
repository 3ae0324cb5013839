"""Kinds of VM, as far as they decide who can know which pages are private."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

__all__ = ["UnknownState", "VmKind"]


class VmKind(StrEnum):
    """How a VM's memory is protected.

    Source: Linux v6.12, arch/x86/include/uapi/asm/kvm.h, KVM_X86_*_VM. Hygon's CSV and CSV2 are,
    for this purpose, SEV and SEV-ES.
    """

    PLAIN = "plain"
    SEV = "sev"
    SEV_ES = "sev-es"
    SEV_SNP = "sev-snp"
    TDX = "tdx"
    SW_PROTECTED = "sw-protected"

    @property
    def uses_guest_memfd(self) -> bool:
        """Private pages live in guest_memfd: not where a slot's host address points."""
        return self in {VmKind.SEV_SNP, VmKind.TDX, VmKind.SW_PROTECTED}


@dataclass(frozen=True, slots=True)
class UnknownState:
    """Nothing at hand can say which pages are private. It is an answer, not an empty bitmap.

    Attributes:
        reason: why, and what would help; one line.
    """

    reason: str
