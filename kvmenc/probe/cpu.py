"""Whose CPU it is: some commands exist on one maker's only, and mean nothing good on another's."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.backend.kinds import is_fake

if TYPE_CHECKING:
    from pathlib import Path

    from kvmenc.kvm import KvmSystem

__all__ = ["is_hygon", "supported_leaf"]

_HYGON = b"HygonGenuine"
_MAX_LEAVES = 256


def is_hygon(system: KvmSystem, root: Path) -> bool:
    """Both KVM's CPUID and, on a real machine, /proc/cpuinfo say Hygon.

    Args:
        system: the KVM.
        root: where the machine's files are; not looked at for a fake KVM, which has no machine.
    """
    leaf = supported_leaf(system, 0)
    if leaf is None:
        return False
    _eax, ebx, ecx, edx = leaf
    vendor = b"".join(it.to_bytes(4, "little") for it in (ebx, edx, ecx))
    if vendor != _HYGON:
        return False
    return is_fake(system.backend) or _cpuinfo_says_hygon(root)


def _cpuinfo_says_hygon(root: Path) -> bool:
    lines = (root / "proc/cpuinfo").read_text(errors="replace").splitlines()
    vendors = {line.partition(":")[2].strip() for line in lines if line.startswith("vendor_id")}
    return vendors == {_HYGON.decode()}


def supported_leaf(system: KvmSystem, function: int) -> tuple[int, int, int, int] | None:
    """A leaf of CPUID as KVM offers it to guests: eax, ebx, ecx, edx; None if there is none."""
    entry_bytes = ctypes.sizeof(uapi.kvm_cpuid_entry2)
    head_bytes = ctypes.sizeof(uapi.kvm_cpuid2)
    buffer = ctypes.create_string_buffer(head_bytes + entry_bytes * _MAX_LEAVES)
    head = uapi.kvm_cpuid2.from_buffer(buffer)
    head.nent = _MAX_LEAVES
    system.ioctl(uapi.KVM_GET_SUPPORTED_CPUID, ctypes.addressof(buffer))  # buffer: alive here
    entries = (uapi.kvm_cpuid_entry2 * min(head.nent, _MAX_LEAVES)).from_buffer(buffer, head_bytes)
    for entry in entries:
        if entry.function == function:
            return entry.eax, entry.ebx, entry.ecx, entry.edx
    return None
