"""KVM_GET_SUPPORTED_CPUID, as far as it tells of memory encryption.

Source: Linux v6.12, arch/x86/kvm/cpuid.c, kvm_dev_ioctl_get_cpuid and __do_cpuid_func.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING

from fakekvm.errors import oserror
from fakekvm.host import CAP_VM_TYPES, VM_SEV_ES

if TYPE_CHECKING:
    from fakekvm.host import Host
    from fakekvm.processmemory import ProcessMemory

__all__ = ["get_supported_cpuid"]

_HEAD = struct.Struct("<I4x")  # struct kvm_cpuid2: nent
_LEAF = struct.Struct("<7I12x")  # struct kvm_cpuid_entry2: function index flags eax ebx ecx edx
_SEV_LEAF = 0x8000001F
_SEV, _SEV_ES = 1 << 1, 1 << 3
_C_BIT, _ASIDS, _FIRST_SEV_ASID = 51, 509, 100


def get_supported_cpuid(host: Host, memory: ProcessMemory, arg: int) -> int:
    """Store the leaves at ``arg``, behind a head that says how many fit.

    Raises:
        OSError: EFAULT; E2BIG, if they do not fit.
    """
    (fits,) = memory.unpack(arg, _HEAD)
    leaves = _leaves(host)
    if fits < len(leaves):
        raise oserror(errno.E2BIG)
    memory.write(arg + _HEAD.size, b"".join(_LEAF.pack(*leaf) for leaf in leaves))
    memory.write(arg, _HEAD.pack(len(leaves))[:4])
    return 0


def _leaves(host: Host) -> list[tuple[int, ...]]:
    vendor = struct.unpack("<3I", _vendor(host))
    leaves: list[tuple[int, ...]] = [(0, 0, 0, 1, *vendor), (0x80000000, 0, 0, _SEV_LEAF, *vendor)]
    if host.sev:
        listed = host.has(CAP_VM_TYPES)
        kinds = _SEV if listed and not listed >> VM_SEV_ES & 1 else _SEV | _SEV_ES
        leaves.append((_SEV_LEAF, 0, 0, kinds, _C_BIT, _ASIDS, _FIRST_SEV_ASID))
    return leaves


def _vendor(host: Host) -> bytes:
    """In the order of ebx, ecx, edx; spelled out it is ebx, edx, ecx."""
    vendor = host.vendor or _usual_vendor(host)
    return (vendor[:4] + vendor[8:12] + vendor[4:8]).encode()


def _usual_vendor(host: Host) -> str:
    if host.csv:
        return "HygonGenuine"
    return "AuthenticAMD" if host.sev else "GenuineIntel"
