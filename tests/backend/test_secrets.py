"""What a guest holds, and the keys it is sent under, are in a recording only if asked for."""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pytest

from fakekvm import host_named
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.kinds import fake_kernel
from kvmenc.backend.replay import ReplayBackend
from kvmenc.errors import ReplayDivergence
from kvmenc.firmware import (
    Certificates,
    FirmwareRefused,
    ReceiveSession,
    SendSession,
    SevGuest,
    SevPlatform,
)
from kvmenc.guest.scratch import PAGE, GuestRam, ScratchVm
from kvmenc.kvm import Exit, KvmSystem
from tests.backend.recordings import PROGRAM, all_bytes, ioctls, record, replay

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from kvmenc.backend import Backend

NPAGES = 4


def pages(seed: int = 1) -> bytes:
    return np.random.default_rng(seed).integers(0, 256, NPAGES * PAGE, np.uint8).tobytes()


class Sent(NamedTuple):
    """What became of a guest that was sent."""

    session: bytes
    headers: list[bytes]
    contents: list[bytes]
    arrived: bytes


def certificates_of(backend: Backend) -> Certificates:
    if isinstance(backend, ReplayBackend):
        recorded = backend.certificates()
        assert recorded
        return Certificates(*recorded)
    kernel = fake_kernel(backend)
    assert kernel
    return Certificates(*kernel.firmware.chip.certificates())


def sent(
    backend: Backend, *, many: bool = False, plain: bytes | None = None, packets_sent: int = NPAGES
) -> Sent:
    """One guest sent to another."""
    certificates = certificates_of(backend)
    with ExitStack() as stack:
        enter = stack.enter_context
        system, platform = enter(KvmSystem.open(backend)), enter(SevPlatform(backend))
        here, there = GuestRam("here", NPAGES), GuestRam("there", NPAGES)
        stack.callback(here.close)
        stack.callback(there.close)
        here.area[:] = plain or pages()
        source = enter(SevGuest.create(system, platform))
        target = enter(SevGuest.create(system, platform))
        source.launch(here.address, NPAGES * PAGE)
        sending = enter(SendSession(source, certificates))
        receiving = ReceiveSession(target, sending.policy, certificates.pdh, sending.session)
        packets = [sending.packet() for _ in range(NPAGES)]
        sources = [here.address + page * PAGE for page in range(NPAGES)]
        targets = [there.address + page * PAGE for page in range(NPAGES)]
        if many:
            sending.send_many(packets[:packets_sent], sources[:packets_sent])
            receiving.receive_many(packets, targets)
        else:
            for packet, source_at, target_at in zip(packets, sources, targets, strict=True):
                sending.send(packet, source_at)
                receiving.receive(packet, target_at)
        sending.finish()
        receiving.finish()
        arrived = b"".join(target.decrypted(address, PAGE) for address in targets)
    headers = [it.header for it in packets]
    return Sent(sending.session, headers, [it.contents for it in packets], arrived)


def held(path: Path, secrets: Iterable[bytes]) -> list[bool]:
    """Of which of these a part of 16 bytes, anywhere in them, is in the file."""
    everything = b"\0".join(all_bytes(path))
    return [
        any(it[at : at + 16] in everything for at in range(0, len(it) - 15, 16)) for it in secrets
    ]


def secrets_of(live: Sent) -> list[bytes]:
    return [pages(), live.session, *live.contents]


@pytest.mark.parametrize("many", [False, True])
def test_no_page_packet_or_session_is_in_the_file(many: bool, tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    lower = FakeBackend(host_named("csv"))
    live = record(path, lower, lambda backend: sent(backend, many=many))
    assert live.arrived == pages()
    assert not any(held(path, secrets_of(live)))
    assert all(held(path, live.headers)), "what is no secret is there, and would be found"


def test_they_are_if_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "a.recording"
    live = record(path, FakeBackend(host_named("sev")), sent, contents=True)
    assert all(held(path, secrets_of(live)))
    assert replay(path, sent) == live


@pytest.mark.parametrize("many", [False, True])
def test_a_guest_arrives_in_a_replay_too(many: bool, tmp_path: Path) -> None:
    """What came out secret is passed on and accepted; what went in comes out again."""

    def use(backend: Backend) -> Sent:
        return sent(backend, many=many)

    path = tmp_path / "a.recording"
    live = record(path, FakeBackend(host_named("csv")), use)
    again = replay(path, use)
    assert again.arrived == live.arrived == pages()
    assert again.headers == live.headers
    assert len(again.session) == len(live.session)
    assert again.session != live.session
    assert [len(it) for it in again.contents] == [PAGE] * NPAGES


def test_other_pages_than_those_recorded_are_told_though_none_are_in_the_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), sent)
    with pytest.raises(ReplayDivergence, match=r"arg\.data\.uaddr: 16384 bytes of another digest"):
        replay(path, lambda backend: sent(backend, plain=pages(2)))


def test_a_packet_that_was_changed_on_its_way_is_told(tmp_path: Path) -> None:
    def use(backend: Backend, *, change: bool) -> None:
        certificates = certificates_of(backend)
        with ExitStack() as stack:
            enter = stack.enter_context
            system, platform = enter(KvmSystem.open(backend)), enter(SevPlatform(backend))
            ram = GuestRam("ram", 1)
            stack.callback(ram.close)
            guest = enter(SevGuest.create(system, platform))
            guest.launch(ram.address, PAGE)
            sending = enter(SendSession(guest, certificates))
            packet = sending.packet()
            sending.send(packet, ram.address)
            if change:
                packet.fill(packet.header, bytes(PAGE))
            with pytest.raises(FirmwareRefused):
                sending._guest.issue(13, packet.at(ram.address))  # RECEIVE_UPDATE_DATA

    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), lambda backend: use(backend, change=False))
    replay(path, lambda backend: use(backend, change=False))
    with pytest.raises(ReplayDivergence, match="trans_uaddr: 4096 bytes of another digest"):
        replay(path, lambda backend: use(backend, change=True))


def test_what_an_owner_sends_to_a_launched_guest_is_not_in_the_file(tmp_path: Path) -> None:
    """A command that kvmenc never issues, and whose packet it knows nevertheless."""
    header, packet = (ctypes.create_string_buffer(pages(it)[:64], 64) for it in (3, 4))

    def use(backend: Backend) -> None:
        secret = uapi.kvm_sev_launch_secret(
            hdr_uaddr=ctypes.addressof(header),
            hdr_len=64,
            guest_uaddr=4096,
            guest_len=64,
            trans_uaddr=ctypes.addressof(packet),
            trans_len=64,
        )
        command = uapi.kvm_sev_cmd(id=uapi.KVM_SEV_LAUNCH_SECRET, data=ctypes.addressof(secret))
        with (
            KvmSystem.open(backend) as system,
            system.create_vm() as vm,
            pytest.raises(OSError, match=r"Errno"),
        ):
            backend.ioctl(vm.fd, uapi.KVM_MEMORY_ENCRYPT_OP, ctypes.addressof(command))

    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("sev")), use)
    (call,) = ioctls(path, uapi.KVM_MEMORY_ENCRYPT_OP)
    assert (call.known, call.name) == (True, "KVM_MEMORY_ENCRYPT_OP KVM_SEV_LAUNCH_SECRET")
    assert held(path, [header.raw, packet.raw]) == [True, False]
    replay(path, use)


def test_what_a_guest_writes_to_its_memory_is_not_in_the_file(tmp_path: Path) -> None:
    """The dirty log says where it wrote; what it wrote is nowhere."""
    marker = b"a guest's secret"

    def use(backend: Backend) -> bytes:
        with ScratchVm(backend) as machine:
            machine.ram.area[:PAGE] = marker * (PAGE // 16)
            machine.load(PROGRAM)
            assert machine.vcpu.run(timeout_s=10) == Exit.IO
            return machine.vm.dirty_log(machine.layout.slots[2]).tobytes()

    path = tmp_path / "a.recording"
    live = record(path, FakeBackend(host_named("mainline")), use)
    assert held(path, [marker, live[:16]]) == [False, True]


def test_what_was_in_a_buffer_before_the_kernel_wrote_to_it_is_not_in_the_file(
    tmp_path: Path,
) -> None:
    """It may be anything that the program had there."""
    marker = b"what was here..."

    def use(backend: Backend) -> None:
        with ScratchVm(backend) as machine:
            slot = machine.layout.slots[2]
            words = np.frombuffer(bytearray(marker * 128), "<u8")
            machine.vm.dirty_log(slot, words)

    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("mainline")), use)
    assert held(path, [marker]) == [False]


@pytest.mark.parametrize(("then", "text"), [(3, "node3: .*called without"), (4, "")])
def test_a_batch_of_fewer_pages_is_told(then: int, text: str, tmp_path: Path) -> None:
    """Its head is the same: only the list behind it is shorter."""
    path = tmp_path / "a.recording"
    record(path, FakeBackend(host_named("csv")), lambda backend: sent(backend, many=True))

    def use(backend: Backend) -> Sent:
        return sent(backend, many=True, packets_sent=then)

    if text:
        with pytest.raises(ReplayDivergence, match=text):
            replay(path, use)
    else:
        replay(path, use)
