"""The whole probe: evidence, self-test, verdicts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from fakekvm import Host
from kvmenc.backend import LocalBackend
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.kinds import is_fake
from kvmenc.encstate.pageenc import Offer, offered_revisions
from kvmenc.guest.trial import delivered_hypercall
from kvmenc.kvm import KvmSystem
from kvmenc.probe import sev
from kvmenc.probe.capabilities import capabilities
from kvmenc.probe.evidence import Evidence, Verdict
from kvmenc.probe.selftest import CHECKS, Check
from kvmenc.probe.selftest import self_test as run_self_test
from kvmenc.probe.verdicts import dirty_verdicts, private_verdicts

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.backend import Backend

__all__ = ["Probe", "open_backend", "probe"]


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """What was found.

    Attributes:
        schema: ``kvmenc.probe/1``.
        backend: whose KVM it is.
        evidence: what was read.
        verdicts: what follows.
        self_test: the checks that were run; empty if none were asked for.
    """

    schema: Literal["kvmenc.probe/1"] = "kvmenc.probe/1"
    backend: str
    evidence: list[Evidence]
    verdicts: list[Verdict]
    self_test: list[Check]

    @property
    def passed(self) -> bool:
        """No check of the self-test failed."""
        return all(check.result == "passed" for check in self.self_test)


def open_backend(name: Literal["local", "fake"]) -> Backend:
    """This machine's KVM, or a fake without SEV."""
    return LocalBackend() if name == "local" else FakeBackend(Host())


def probe(
    backend: Backend,
    *,
    root: Path = Path("/"),
    self_test: bool = False,
    update: Callable[[float], object] = lambda _done: None,
) -> Probe:
    """Look at a KVM, and at the machine that it is on.

    Args:
        backend: whose KVM.
        root: where the machine's files are; not looked at for a fake KVM, which has no machine.
        self_test: also run scratch guests.
        update: told how far the self-test is, 0 to 1.

    Raises:
        NoKvm: there is none.
    """
    with KvmSystem.open(backend) as system, system.create_vm() as scratch:
        encrypt_op = sev.encrypt_op(scratch)
        offer = offered_revisions(scratch)
        evidence = [*capabilities(system), encrypt_op, *_machine(system, root), _bitmap(offer)]
        checks = _checks(backend, update) if self_test else []
        hypercalls = delivered_hypercall(backend) is not None if self_test else None
        verdicts = dirty_verdicts(system, checks) + private_verdicts(
            system,
            encrypt_op=encrypt_op.value,
            offer=offer,
            hypercalls=hypercalls,
        )
    return Probe(backend=backend.name, evidence=evidence, verdicts=verdicts, self_test=checks)


def _machine(system: KvmSystem, root: Path) -> list[Evidence]:
    """What the machine's files, its firmware and its CPU say."""
    if is_fake(system.backend):
        return []
    firmware = sev.platform_status(system.backend)
    return [*sev.files(root), firmware, sev.cpu_flags(root), sev.sev_leaf(system)]


def _bitmap(offer: Offer) -> Evidence:
    names = ", ".join(revision.name for revision in offer.candidates)
    says = f"the kernel implements the number of {names}" if names else "ENOTTY to all: none here"
    if offer.unclear and not names:
        says = f"it is not clear if there is one; {', '.join(offer.unclear)}"
    elif offer.unclear:
        says += f"; not clear: {', '.join(offer.unclear)}"
    return Evidence("encryption bitmap", names or "none", "each GET number, NULL, scratch VM", says)


def _checks(backend: Backend, update: Callable[[float], object]) -> list[Check]:
    checks = []
    for check in run_self_test(backend):
        checks.append(check)
        update(len(checks) / CHECKS)
    return checks
