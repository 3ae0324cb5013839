"""The guests that a rehearsal can begin with, and the host that it sends them to."""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fakekvm import Kernel, host_named
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.contents import Contents
from kvmenc.encstate.pageenc import PageEncSource
from kvmenc.firmware import SevGuest, SevPlatform
from kvmenc.guest.scratch import PAGE
from kvmenc.kvm import KvmSystem
from kvmenc.rehearsal.builtin import BuiltIn
from kvmenc.rehearsal.destination import NearTarget
from kvmenc.rehearsal.side import FakeVm, Side
from kvmenc.rehearsal.vcpus import Clocked, Stepped, Threaded, Timed
from kvmenc.scratchrun import REVISION, TICKS_PER_S, Part, ScratchRun, open_scratch_backend

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from fakekvm import Host
    from fakekvm.scripts import Scripts
    from kvmenc.memory.layout import Layout
    from kvmenc.rehearsal.vcpus import Guest

__all__ = ["Source", "destination", "fake_source", "local_source", "near_target"]

_REVISION = "sev-v9"
_FIRMWARE = "SEND, RECEIVE: fakekvm's, AES-128 and HMAC-SHA-256"


@dataclass(frozen=True, slots=True)
class Source:
    """A guest to be migrated: launched, not booted.

    Attributes:
        side: its VM.
        guest: its vCPUs.
        about: in words.
        parts: what is real.
        twin: makes another that will do the same; None: there is none.
    """

    side: Side
    guest: Guest
    about: str
    parts: tuple[Part, ...]
    twin: Callable[[], AbstractContextManager[Source]] | None = None


@contextmanager
def fake_source(
    scripts: Scripts,
    shape: Layout,
    host: Host | None = None,
    vcpus: int = 1,
    *,
    manual_protect: bool = True,
    threads: bool = False,
) -> Iterator[Source]:
    """A guest on a fake host.

    Args:
        scripts: what its vCPUs do.
        shape: its memory.
        host: a machine with SEV and an encryption bitmap; its chip and memory's keys are its own.
        vcpus: how many.
        manual_protect: see ``FakeVm``.
        threads: each vCPU in a thread of its own, and not one after the other.
    """
    timed = Timed(scripts)
    machine = replace(host or host_named(_REVISION), chip="source")
    with FakeVm(Kernel(machine, timed), shape, vcpus, manual_protect=manual_protect) as vm:
        _launch(vm.side)
        if isinstance(scripts, BuiltIn):
            scripts.fill(vm.side)
        clocked = [Clocked(it, _clock_of(timed, number)) for number, it in enumerate(vm.vcpus)]
        guest = (Threaded if threads else Stepped)(clocked)
        vm.backend.meanwhile = guest.step

        def twin() -> AbstractContextManager[Source]:
            return fake_source(scripts, shape, host, vcpus, manual_protect=manual_protect)

        parts = _fake_parts()
        with _stopped_at_the_end(guest):
            yield Source(vm.side, guest, scripts.about, parts, None if threads else twin)


def _clock_of(timed: Timed, vcpu: int) -> Callable[[int], float]:
    return lambda _ticks: timed.ms[vcpu]


@contextmanager
def _stopped_at_the_end(guest: Guest) -> Iterator[None]:
    try:
        yield
    finally:
        guest.stop()


def _fake_parts() -> tuple[Part, ...]:
    return (
        Part("KVM, guest", False, "fakekvm, a script on each vCPU"),
        Part("sync", True, "kvmenc's own code"),
        Part("firmware", False, _FIRMWARE),
    )


def _launch(side: Side) -> None:
    """With the first page, as a guest's own firmware would be measured and encrypted."""
    side.sev.launch(side.layout.blocks[0].host_addr, PAGE)


@contextmanager
def local_source() -> Iterator[Source]:
    """The scratch guest on this machine's KVM, with fakekvm's encryption bitmap laid over it.

    Its memory is in the clear: the CPU has no keys. The firmware is a fake's, which takes it so.

    Raises:
        HostError: /dev/kvm cannot be used.
    """
    with ExitStack() as cleanup:
        run = ScratchRun(open_scratch_backend("local"))
        cleanup.callback(run.__exit__)
        vm, layout = run.machine.vm, run.machine.layout
        host = replace(host_named(_REVISION), chip="source", clear_memory=True)
        kernel = cleanup.enter_context(Kernel(host))
        backend = FakeBackend(kernel)
        system = cleanup.enter_context(KvmSystem.open(backend))
        platform = cleanup.enter_context(SevPlatform(backend))
        sev = cleanup.enter_context(SevGuest.create(system, platform))
        contents = cleanup.enter_context(Contents(os.getpid(), layout))
        private = PageEncSource(vm, uapi.REVISIONS[REVISION])
        side = Side(layout, vm, private, sev, kernel, contents)
        _launch(side)
        guest = Threaded([Clocked(run.machine.vcpu, lambda ticks: ticks * 1e3 / TICKS_PER_S)])
        cleanup.callback(guest.stop)
        parts = (*run.parts, Part("firmware", False, f"{_FIRMWARE}; memory in the clear"))
        yield Source(side, guest, "scratch guest on /dev/kvm", parts)


@contextmanager
def destination(shape: Layout) -> Iterator[Side]:
    """A VM of the same slots, on another fake host with a chip of its own."""
    kernel = Kernel(replace(host_named(_REVISION), chip="destination"))
    with FakeVm(kernel, shape) as vm:
        yield vm.side


@contextmanager
def near_target(shape: Layout) -> Iterator[NearTarget]:
    """A destination in this process."""
    with destination(shape) as side:
        yield NearTarget(side)
