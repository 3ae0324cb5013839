"""What a QEMU says of itself, by scripted answers; their form is QEMU v7.2's and v10.0's."""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING

import pytest

from kvmenc import procfs
from kvmenc.encstate.kinds import VmKind
from kvmenc.errors import HostError
from kvmenc.qemu.facts import ask_kind, read_facts
from tests.qemu_text.servers import Refusal, ToldQemu

if TYPE_CHECKING:
    from collections.abc import Callable

VERSION = {"qemu": {"micro": 13, "minor": 0, "major": 10}, "package": "Debian 1:10.0.13+ds"}
# Of QEMU 7.2 and 10.0 on a host without SEV.
NO_SEV = {"enabled": False, "api-minor": 0, "state": "uninit", "build-id": 0, "policy": 0}


def qom(properties: dict[str, object]) -> Callable[..., object]:
    def get(*, path: str, property: str) -> object:  # noqa: A002 - QMP's name for it
        missing = Refusal(f"Property '{property}' not found")
        return properties.get(f"{path}.{property}", missing)

    return get


def machine(protection: str = "", **properties: object) -> dict[str, object]:
    of_machine: dict[str, object] = {
        "/machine.type": "pc-q35-10.0-machine",
        "/machine.confidential-guest-support": f"/objects/{protection}" if protection else "",
    }
    of_object = {f"/objects/{protection}.{name}": value for name, value in properties.items()}
    return {"qom-get": qom({**of_machine, **of_object}), "query-sev": NO_SEV}


def old(sev: object) -> dict[str, object]:
    """Without the property of machines that names what protects them."""
    return {"qom-get": Refusal("Property not found"), "query-sev": sev}


def answers(tid: int, **others: object) -> dict[str, object]:
    """Of a plain guest whose first page lies on a stack of this process."""
    return {
        "query-kvm": {"enabled": True, "present": True},
        "query-version": VERSION,
        "query-status": {"status": "running", "running": True},
        "query-migrate": {},
        "query-cpus-fast": [{"thread-id": tid, "cpu-index": 0, "target": "x86_64"}],
        "human-monitor-command": "Host virtual address for 0x0 (pc.ram) is 0x1000\r\n",
        **machine(),
        **others,
    }


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (machine(), VmKind.PLAIN),
        (machine("sev0", type="sev-guest", policy=1), VmKind.SEV),
        (machine("sev0", type="sev-guest", policy=5), VmKind.SEV_ES),
        (machine("snp", type="sev-snp-guest", policy=0x30000), VmKind.SEV_SNP),
        (machine("tdx", type="tdx-guest"), VmKind.TDX),
        (old(NO_SEV), VmKind.PLAIN),
        (old(Refusal("SEV feature is not available")), VmKind.PLAIN),
        (old({"enabled": True, "policy": 1}), VmKind.SEV),
        (old({"enabled": True, "policy": 5}), VmKind.SEV_ES),
        (old({"enabled": True, "sev-type": "sev-snp", "snp-policy": 0x30000}), VmKind.SEV_SNP),
    ],
)
def test_the_kind_of_vm(told: dict[str, object], kind: VmKind) -> None:
    assert ask_kind(ToldQemu(told)) is kind


def test_a_protection_that_is_not_known_is_never_taken_for_none() -> None:
    with pytest.raises(HostError, match="protected by 'pef-guest', which is not known"):
        ask_kind(ToldQemu(machine("x", type="pef-guest")))


def test_a_guest_not_run_by_kvm_is_refused() -> None:
    told = ToldQemu(answers(1, **{"query-kvm": {"enabled": False, "present": True}}))
    with pytest.raises(HostError, match="not run by KVM"):
        read_facts(told)


def test_a_guest_that_is_no_x86_is_refused() -> None:
    cpus = [{"thread-id": 1, "cpu-index": 0, "target": "aarch64"}]
    with pytest.raises(HostError, match="not an x86"):
        read_facts(ToldQemu(answers(1, **{"query-cpus-fast": cpus})))


def test_a_thread_that_is_not_here_means_a_container_or_another_host() -> None:
    with pytest.raises(HostError, match="in a container\\? Give --pid; on another host"):
        read_facts(ToldQemu(answers(2**22 + 1)))


def test_a_process_without_a_vm_is_not_the_qemu() -> None:
    tid = threading.get_native_id()
    with pytest.raises(HostError, match=f"process {os.getpid()} is not the QEMU that answers"):
        read_facts(ToldQemu(answers(tid)))
    with pytest.raises(HostError, match="check --pid"):
        read_facts(ToldQemu(answers(tid)), os.getpid())


@pytest.fixture
def vm_at(monkeypatch: pytest.MonkeyPatch) -> int:
    """This process seems to have a VM; an address of it."""
    links = {3: "/dev/kvm", 9: "anon_inode:kvm-vm"}
    monkeypatch.setattr(procfs, "fd_links", lambda _: links)
    return procfs.mappings(os.getpid())[0].start


def at(addr: int) -> dict[str, object]:
    return {"human-monitor-command": f"Host virtual address for 0x0 (pc.ram) is {addr:#x}\r\n"}


def test_the_process_is_found_by_a_vcpu_and_the_facts_are_told(vm_at: int) -> None:
    tid = threading.get_native_id()
    facts = read_facts(ToldQemu(answers(tid, **at(vm_at))))
    assert (facts.pid, facts.vcpu_tids) == (os.getpid(), (tid,))
    assert (facts.version, facts.release) == ((10, 0, 13), "10.0.13 (Debian 1:10.0.13+ds)")
    assert (facts.machine, facts.kind) == ("pc-q35-10.0", VmKind.PLAIN)
    assert (facts.vm_status, facts.migration, facts.is_migrating) == ("running", None, False)


@pytest.mark.parametrize(
    ("status", "goes_on"),
    [("active", True), ("setup", True), ("postcopy-paused", True), ("completed", False)],
)
def test_a_migration_that_goes_on_is_told_from_one_that_is_over(
    vm_at: int, status: str, goes_on: bool
) -> None:
    told = answers(threading.get_native_id(), **at(vm_at), **{"query-migrate": {"status": status}})
    facts = read_facts(ToldQemu(told))
    assert (facts.migration, facts.is_migrating) == (status, goes_on)


def test_memory_that_does_not_lie_where_qemu_says_is_another_process(vm_at: int) -> None:
    told = ToldQemu(answers(threading.get_native_id(), **at(0x1000)))
    with pytest.raises(HostError, match="is not the QEMU that answers"):
        read_facts(told)


def test_thread_ids_of_a_container_are_translated(
    vm_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NSpid holds a thread's ids from this pid namespace to its own."""
    tid = threading.get_native_id()
    monkeypatch.setattr(procfs, "thread_ids", lambda _: [tid])
    monkeypatch.setattr(procfs, "status_field", lambda *_: f"{tid} 17 4")
    facts = read_facts(ToldQemu(answers(4, **at(vm_at))), os.getpid())
    assert facts.vcpu_tids == (tid,)
    with pytest.raises(HostError, match="check --pid"):
        read_facts(ToldQemu(answers(5, **at(vm_at))), os.getpid())


@pytest.mark.parametrize("command", ["query-kvm", "query-version", "query-cpus-fast"])
def test_an_answer_of_another_form_is_named(vm_at: int, command: str) -> None:
    told = answers(threading.get_native_id(), **at(vm_at), **{command: {"no": "such"}})
    with pytest.raises(HostError, match=re.escape(f"told: {command}: not the answer of a QEMU")):
        read_facts(ToldQemu(told))
