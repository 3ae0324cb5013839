"""What a running QEMU is: version, process, vCPUs, state, and how its guest's memory is protected.

Nothing here changes it, and nothing makes it look for modules: ``qom-list-types`` does, and ends a
QEMU whose package was upgraded under it (QEMU v7.2, util/module.c, module_load_dso: seen).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from kvmenc import procfs
from kvmenc.encstate.kinds import VmKind
from kvmenc.errors import HostError, InputError, NotPermitted
from kvmenc.qemu.monitor import CommandError, ask, one_line

if TYPE_CHECKING:
    from kvmenc.qemu.monitor import Monitor

__all__ = ["NO_MIGRATION", "Facts", "ask_kind", "ask_migration", "ask_version", "read_facts"]

#: Of ``query-migrate``: nothing goes on (QEMU v10.0, qapi/migration.json, MigrationStatus).
NO_MIGRATION = frozenset({None, "none", "completed", "failed", "cancelled"})

_KVM_VM = "anon_inode:kvm-vm"
# QEMU v7.2 and v10.0, target/i386/sev.h, SEV_POLICY_ES.
_ES = 0x4
# QEMU v10.0, target/i386/sev.h; since v10.1, target/i386/kvm/tdx.h.
_KIND_OF = {
    "sev-guest": VmKind.SEV,
    "sev-snp-guest": VmKind.SEV_SNP,
    "tdx-guest": VmKind.TDX,
}


@dataclass(frozen=True, slots=True)
class Facts:
    """A running QEMU.

    Attributes:
        version: major, minor, micro.
        package: what the distribution calls it; may be empty.
        pid: its process, as this process sees it.
        vcpu_tids: thread ids of the vCPUs, likewise.
        vm_status: of ``query-status``, such as ``running``.
        migration: of ``query-migrate``, such as ``active``; None: there was none.
        kind: how the guest's memory is protected.
        machine: type, such as ``pc-i440fx-7.2``; None: not told.
    """

    version: tuple[int, int, int]
    package: str
    pid: int
    vcpu_tids: tuple[int, ...]
    vm_status: str
    migration: str | None
    kind: VmKind
    machine: str | None

    @property
    def release(self) -> str:
        """The version in text, with the package."""
        number = ".".join(map(str, self.version))
        return f"{number} ({self.package})" if self.package else number

    @property
    def is_migrating(self) -> bool:
        """A migration goes on."""
        return self.migration not in NO_MIGRATION


class _Number(msgspec.Struct):
    major: int
    minor: int
    micro: int


class _Version(msgspec.Struct):
    qemu: _Number
    package: str

    @property
    def number(self) -> tuple[int, int, int]:
        return self.qemu.major, self.qemu.minor, self.qemu.micro


class _Kvm(msgspec.Struct):
    enabled: bool


class _Cpu(msgspec.Struct, rename="kebab"):
    thread_id: int
    target: str


class _Status(msgspec.Struct):
    status: str | None = None


class _Sev(msgspec.Struct, rename="kebab"):
    """What QEMU says of SEV itself: v7.2 tells no type, v10.0 does."""

    enabled: bool
    policy: int = 0
    sev_type: str = "sev"


def read_facts(monitor: Monitor, pid: int | None = None) -> Facts:
    """Ask QEMU, and find its process.

    The process is proven to be the one that answers, as far as this one may look into it: it has a
    VM, the vCPUs are its threads, and the guest's first page lies where QEMU says.

    Args:
        monitor: asked.
        pid: the process; without it, it is found by the vCPUs' thread ids, which needs QEMU to be
            in the pid namespace of this process.

    Raises:
        HostError: QEMU does not answer; its guest is not run by KVM or not an x86; its process is
            not found, or not the one given.
    """
    if not ask(monitor, _Kvm, "query-kvm").enabled:
        raise HostError(
            f"{monitor.name}: this guest is not run by KVM: there is no dirty log to read"
        )
    tids = _vcpu_tids(monitor)
    process = _process_of(tids) if pid is None else pid
    own_ids = _own_ids(process)
    if not own_ids.keys() >= set(tids) or not _holds_guest(monitor, process):
        what_to_do = "is it in a container? Give --pid" if pid is None else "check --pid"
        raise HostError(
            f"process {process} is not the QEMU that answers ({monitor.name}): {what_to_do}"
        )
    version = ask(monitor, _Version, "query-version")
    return Facts(
        version=version.number,
        package=one_line(version.package),
        pid=process,
        vcpu_tids=tuple(own_ids[tid] for tid in tids),
        vm_status=one_line(ask(monitor, _Status, "query-status").status or "unknown"),
        migration=ask_migration(monitor),
        kind=ask_kind(monitor),
        machine=one_line(_property(monitor, "/machine", "type")).removesuffix("-machine") or None,
    )


def ask_version(monitor: Monitor) -> tuple[int, int, int]:
    """QEMU's version."""
    return ask(monitor, _Version, "query-version").number


def ask_migration(monitor: Monitor) -> str | None:
    """What a migration out of this QEMU is at; None: there was none."""
    return ask(monitor, _Status, "query-migrate").status


def ask_kind(monitor: Monitor) -> VmKind:
    """How the guest's memory is protected: by what object (QEMU v7.2, hw/core/machine.c).

    Raises:
        HostError: by one that is not known here.
    """
    path = _property(monitor, "/machine", "confidential-guest-support")
    if not path:
        return _kind_by_sev(monitor)
    name = _property(monitor, path, "type")
    kind = _KIND_OF.get(name)
    if kind is None:
        raise HostError(
            f"{monitor.name}: a guest protected by {name[:40]!r}, which is not known here"
        )
    if kind is VmKind.SEV and ask(monitor, int, "qom-get", path=path, property="policy") & _ES:
        return VmKind.SEV_ES
    return kind


def _kind_by_sev(monitor: Monitor) -> VmKind:
    """Of a machine that names no such object: a plain one, or of a QEMU that knows no such link."""
    try:
        sev = ask(monitor, _Sev, "query-sev")
    except CommandError:
        return VmKind.PLAIN
    if not sev.enabled:
        return VmKind.PLAIN
    if sev.sev_type == "sev-snp":
        return VmKind.SEV_SNP
    return VmKind.SEV_ES if sev.policy & _ES else VmKind.SEV


def _property(monitor: Monitor, path: str, name: str) -> str:
    """A string property of an object; empty where this QEMU has none of the name."""
    try:
        return ask(monitor, str, "qom-get", path=path, property=name)
    except CommandError:
        return ""


def _vcpu_tids(monitor: Monitor) -> list[int]:
    """Their thread ids as QEMU sees them: in a container, numbers of its own."""
    cpus = ask(monitor, list[_Cpu], "query-cpus-fast")
    if not cpus or any(cpu.target not in {"x86_64", "i386"} for cpu in cpus):
        raise HostError(f"{monitor.name}: this guest is not an x86, which alone is known here")
    return [cpu.thread_id for cpu in cpus]


def _process_of(tids: list[int]) -> int:
    try:
        return procfs.tgid_of(tids[0])
    except HostError as error:
        raise HostError(
            f"there is no thread {tids[0]}, where QEMU says that its first vCPU is: is QEMU in a "
            "container? Give --pid; on another host, run kvmenc there"
        ) from error


def _own_ids(pid: int) -> dict[int, int]:
    """The threads of a process by the ids that it sees itself: the innermost of each."""
    ids = {}
    for tid in procfs.thread_ids(pid):
        try:
            ids[int((procfs.status_field(tid, "NSpid") or str(tid)).split()[-1])] = tid
        except HostError:
            continue  # ended in between
    return ids


def _holds_guest(monitor: Monitor, pid: int) -> bool:
    """A process with a VM, whose memory lies where QEMU says; addresses are random.

    Where this process may not look, there is nothing against it.
    """
    try:
        if _KVM_VM not in procfs.fd_links(pid).values():
            return False
        addr = monitor.host_addr(0)
        return any(it.start <= addr < it.end for it in procfs.mappings(pid))
    except (InputError, NotPermitted):
        return True
