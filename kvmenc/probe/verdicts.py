"""From evidence to answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.probe.capabilities import vm_type_names
from kvmenc.probe.evidence import Verdict
from kvmenc.probe.selftest import RING_BURST, Check

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.encstate.pageenc import Offer
    from kvmenc.kvm import KvmSystem

__all__ = ["dirty_verdicts", "private_verdicts"]


def dirty_verdicts(system: KvmSystem, checks: Sequence[Check] = ()) -> list[Verdict]:
    """Can dirty pages be read, and without taking them from another reader?

    Args:
        system: the KVM.
        checks: what the self-test found, where it was run.
    """
    manual = system.check_extension(uapi.KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2)
    peek = bool(manual & uapi.KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE)
    return [
        Verdict("dirty pages of vCPUs", "yes", "KVM_GET_DIRTY_LOG; device writes are not in it"),
        Verdict(
            "read them without clearing",
            "yes" if peek else "no",
            "manual protect" if peek else "each reading takes the bits: never beside a migration",
        ),
        _ring(system.check_extension(uapi.KVM_CAP_DIRTY_LOG_RING_ACQ_REL), checks),
    ]


def _ring(ring_bytes: int, checks: Sequence[Check]) -> Verdict:
    if not ring_bytes:
        return Verdict("dirty ring", "no", "the kernel offers none")
    for check in checks:
        if check.name == RING_BURST and check.result == "failed":
            return Verdict("dirty ring", "no", f"offered, but {check.detail}")
    return Verdict("dirty ring", "yes", f"up to {ring_bytes // 16} entries a vCPU")


def private_verdicts(
    system: KvmSystem, *, encrypt_op: str, offer: Offer, hypercalls: bool | None
) -> list[Verdict]:
    """Are there encrypted guests, and who can say which of their pages are private?

    Args:
        system: the KVM.
        encrypt_op: the value of the evidence of that name.
        offer: revisions of the bitmap ioctl whose number the kernel implements.
        hypercalls: whether a trial guest's KVM_HC_MAP_GPA_RANGE arrived; None if not tried.
    """
    mask = system.check_extension(uapi.KVM_CAP_VM_TYPES)
    return [
        _sev(mask, encrypt_op),
        _bitmap(offer),
        _hypercall(hypercalls),
        _guest_memfd(system, mask),
    ]


def _sev(mask: int, encrypt_op: str) -> Verdict:
    types = [name for name in vm_type_names(mask) if name in {"SEV", "SEV_ES", "SNP"}]
    if types:
        return Verdict("SEV guests", "yes", "VM types " + ", ".join(types))
    if encrypt_op in {"0", "EFAULT"}:
        return Verdict("SEV guests", "yes", "KVM answers SEV commands; its types are not listed")
    if encrypt_op == "ENOTTY":
        return Verdict("SEV guests", "no", "no SEV VM type, and KVM_MEMORY_ENCRYPT_OP says ENOTTY")
    return Verdict("SEV guests", "unknown", f"KVM_MEMORY_ENCRYPT_OP(NULL) failed: {encrypt_op}")


def _bitmap(offer: Offer) -> Verdict:
    question = "private/shared by KVM_GET_PAGE_ENC_BITMAP"
    if offer.unclear:
        return Verdict(question, "unknown", f"no clear answer: {offer.unclear[0]}")
    candidates = [revision.name for revision in offer.candidates]
    if not candidates:
        return Verdict(question, "no", "no number of any posted revision is implemented")
    if len(candidates) == 1:
        return Verdict(question, "yes", f"revision {candidates[0]}")
    because = f"one number, several meanings ({', '.join(candidates)}): name the one you built"
    return Verdict(question, "unknown", because)


def _hypercall(hypercalls: bool | None) -> Verdict:
    question = "private/shared by KVM_HC_MAP_GPA_RANGE"
    if hypercalls is None:
        return Verdict(question, "unknown", "not tried: run `kvmenc probe --self-test`")
    if hypercalls:
        return Verdict(question, "yes", "a trial guest's hypercall arrived as an exit")
    return Verdict(question, "no", "a trial guest's hypercall did not arrive (no SVM or VMX here)")


def _guest_memfd(system: KvmSystem, mask: int) -> Verdict:
    question = "dirty pages of SNP/TDX private memory"
    if system.check_extension(uapi.KVM_CAP_GUEST_MEMFD) or mask >> uapi.KVM_X86_SNP_VM:
        because = "private memory cannot be dirty-logged on mainline (guest_memfd refuses the flag)"
        return Verdict(question, "no", because)
    return Verdict(question, "no", "no guest_memfd here: no such guests")
