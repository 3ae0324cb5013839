"""Is this an SEV host? The evidence in the order of its worth.

1. KVM_CAP_VM_TYPES: what KVM_CREATE_VM accepts (kernels of 6.10 and newer).
2. KVM_MEMORY_ENCRYPT_OP with a NULL argument on a scratch VM: 0 with SEV, ENOTTY without (Linux
   v6.12, arch/x86/kvm/svm/sev.c, sev_mem_enc_ioctl).
3. the parameters of kvm_amd: written back by its set-up, so they show what took effect.
4. /dev/sev, SEV_PLATFORM_STATUS: the firmware's own state.
5. CPUID 0x8000001f: what the silicon could do; over-reports.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.call import call
from kvmenc.errors import IoctlError, KvmencError, NotSupported, errno_name
from kvmenc.probe.cpu import supported_leaf
from kvmenc.probe.evidence import Evidence

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.backend import Backend
    from kvmenc.kvm import KvmSystem, Vm

__all__ = ["cpu_flags", "encrypt_op", "files", "platform_status", "sev_leaf"]

_SEV_LEAF = 0x8000001F
_LEAF_BITS = {0: "SME", 1: "SEV", 3: "SEV-ES", 4: "SEV-SNP"}
_STATES = {0: "uninitialised", 1: "initialised", 2: "working"}


def encrypt_op(vm: Vm) -> Evidence:
    """KVM_MEMORY_ENCRYPT_OP with NULL on a scratch VM: harmless, and tells."""
    try:
        vm.ioctl(uapi.KVM_MEMORY_ENCRYPT_OP, 0)
        value, says = "0", "SEV is enabled in KVM"
    except NotSupported:
        value, says = "ENOTTY", "KVM has no SEV here"
    except IoctlError as error:
        value = errno_name(error.errno or 0)
        known = error.errno == errno.EFAULT
        says = "an older kernel with SEV commands" if known else "an unexpected answer"
    return Evidence("SEV commands", value, "KVM_MEMORY_ENCRYPT_OP(NULL), scratch VM", says)


def files(root: Path = Path("/")) -> Iterator[Evidence]:
    """The parameters of kvm_amd.

    Args:
        root: where the file system starts; another one in tests.
    """
    for name in ("sev", "sev_es", "sev_snp"):
        path = root / "sys/module/kvm_amd/parameters" / name
        try:
            value = path.read_text().strip()
        except OSError:
            value, says = "absent", "kvm_amd is not loaded, or is too old to know it"
        else:
            says = "in effect" if value in {"Y", "1"} else "not in effect"
        yield Evidence(f"kvm_amd.{name}", value, f"/sys/module/kvm_amd/parameters/{name}", says)


def cpu_flags(root: Path = Path("/")) -> Evidence:
    """What the kernel lists for this CPU."""
    text = (root / "proc/cpuinfo").read_text(errors="replace")
    line = next((line for line in text.splitlines() if line.startswith("flags")), "")
    known = {"svm", "vmx", "sme", "sev", "sev_es", "sev_snp"}
    flags = [flag for flag in line.split() if flag in known]
    says = "hardware virtualisation" if {"svm", "vmx"} & set(flags) else "neither SVM nor VMX"
    return Evidence("CPU flags", " ".join(flags) or "none", "/proc/cpuinfo", says)


def sev_leaf(system: KvmSystem) -> Evidence:
    """CPUID 0x8000001f, as KVM offers it to guests."""
    source = f"KVM_GET_SUPPORTED_CPUID, leaf {_SEV_LEAF:#x}"
    try:
        leaf = supported_leaf(system, _SEV_LEAF)
    except KvmencError as error:
        return Evidence("CPUID", "unreadable", source, str(error))
    if leaf is None:
        return Evidence("CPUID", "absent", source, "the CPU has no memory encryption")
    eax, ebx, ecx, edx = leaf
    if eax == 0:
        return Evidence("CPUID", "eax=0x0", source, "KVM offers no memory encryption to guests")
    features = ", ".join(name for bit, name in _LEAF_BITS.items() if eax >> bit & 1) or "none"
    says = f"{features}; C-bit {ebx & 63}; {ecx} ASIDs, SEV from {edx}; firmware may allow less"
    return Evidence("CPUID", f"eax={eax:#x}", source, says)


def platform_status(backend: Backend, path: str = "/dev/sev") -> Evidence:
    """The firmware's state. The device is opened read-only: what could change it is refused."""
    source = f"{path}, SEV_PLATFORM_STATUS"
    try:
        fd = backend.open(path, os.O_RDONLY)
    except OSError as error:
        says = {
            errno.ENOENT: "no SEV firmware driver (ccp), or no secure processor",
            errno.EACCES: "not permitted: run as root to read it",
        }.get(error.errno or 0, "it does not open")
        return Evidence("firmware", errno_name(error.errno or 0), source, says)
    try:
        return Evidence("firmware", *_status(backend, fd, source))
    finally:
        backend.close(fd)


def _status(backend: Backend, fd: int, source: str) -> tuple[str, str, str]:
    status = uapi.sev_user_data_status()
    command = uapi.sev_issue_cmd(cmd=uapi.SEV_PLATFORM_STATUS, data=ctypes.addressof(status))
    try:
        call(backend, fd, uapi.SEV_ISSUE_CMD, command)
    except NotSupported:
        return "ENOTTY", source, "this driver has no such command"
    except IoctlError as error:
        says = f"firmware error {uapi.sev_ret_name(command.error)}"
        return errno_name(error.errno or 0), source, says
    es = ", ES configured" if status.flags & uapi.SEV_STATUS_FLAGS_CONFIG_ES else ""
    state = _STATES.get(status.state, f"state {status.state}")
    version = f"API {status.api_major}.{status.api_minor} build {status.build}"
    return version, source, f"{state}, {status.guest_count} guests{es}"
