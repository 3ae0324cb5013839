"""Sessions: a guest sent to another through kvmenc's handles, and everything that goes wrong."""

from __future__ import annotations

import errno
import os
from dataclasses import replace

import numpy as np
import pytest

from fakekvm import host_named
from fakekvm.sevcerts import Chip
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.errors import HostError, IoctlError, NotSupported, WrongProcess
from kvmenc.firmware import (
    Certificates,
    FirmwareRefused,
    GuestState,
    Packet,
    PacketRows,
    ReceiveSession,
    SendSession,
    SevGuest,
    SevPlatform,
)
from kvmenc.guest.scratch import PAGE, GuestRam
from kvmenc.kvm import KvmSystem
from tests.firmware.guests import NPAGES, Host


def arriving(host: Host, sending: SendSession) -> tuple[SevGuest, ReceiveSession]:
    guest = host.guest()
    pdh = host.certificates.pdh
    return guest, ReceiveSession(guest, sending.policy, pdh, sending.session)


def test_a_guest_is_sent_page_by_page_and_arrives_as_it_was(host: Host) -> None:
    here, there = host.ram(1), host.ram(100)
    source = host.launched(here)
    with SendSession(source, host.certificates) as sending:
        target, receiving = arriving(host, sending)
        packet = sending.packet()
        for page in range(NPAGES):
            sending.send(packet, here.address + page * PAGE)
            receiving.receive(packet, there.address + page * PAGE)
        states = source.status().state, target.status().state
        assert states == (GuestState.SEND_UPDATE, GuestState.RECEIVE_UPDATE)
        sending.finish()
    receiving.finish()
    assert (source.status().state, target.status().state) == (GuestState.SENT, GuestState.RUNNING)
    for page in range(NPAGES):
        address = there.address + page * PAGE
        assert target.decrypted(address, PAGE) == bytes([1 + page]) * PAGE
        assert there.area[page * PAGE : (page + 1) * PAGE] != bytes([1 + page]) * PAGE


@pytest.mark.parametrize("revision", ["sev", "sev-v2-2019"])
def test_a_guest_is_made_by_the_commands_that_the_kernel_has(revision: str) -> None:
    with Host(FakeBackend(host_named(revision))) as host:
        assert host.launched(host.ram()).status().state == GuestState.RUNNING


def test_lengths_are_the_firmwares_own_and_a_page(host: Host) -> None:
    with SendSession(host.launched(host.ram()), host.certificates) as sending:
        assert (sending.hdr_len, sending.trans_len, len(sending.session)) == (52, 4096, 128)


def test_a_packet_goes_over_a_wire_as_two_blobs(host: Host) -> None:
    here, there = host.ram(1), host.ram()
    with SendSession(host.launched(here), host.certificates) as sending:
        target, receiving = arriving(host, sending)
        packet, copy = sending.packet(), Packet(sending.hdr_len, sending.trans_len)
        sending.send(packet, here.address)
        copy.fill(packet.header, packet.contents)
        receiving.receive(copy, there.address)
        assert target.decrypted(there.address, PAGE) == b"\1" * PAGE
        copy.fill(packet.header, bytes(PAGE))
        with pytest.raises(FirmwareRefused, match="BAD_MEASUREMENT: what arrived is not what was"):
            receiving.receive(copy, there.address)


def sent_in_rows(sending: SendSession, here: GuestRam, there: GuestRam) -> PacketRows:
    """All pages of a guest, on their way to others."""
    rows, offsets = sending.rows(NPAGES), np.arange(NPAGES) * PAGE
    rows.lie_at(here.address + offsets)
    sending.send_rows(rows, NPAGES)
    rows.lie_at(there.address + offsets)
    return rows


def test_rows_of_packets_go_by_a_command_each(host: Host) -> None:
    here, there = host.ram(1), host.ram()
    with SendSession(host.launched(here), host.certificates) as sending:
        target, receiving = arriving(host, sending)
        rows = sent_in_rows(sending, here, there)
        receiving.receive_rows(rows)
        for page in range(NPAGES):
            assert target.decrypted(there.address + page * PAGE, PAGE) == bytes([1 + page]) * PAGE


def test_the_rows_before_one_that_is_refused_have_arrived(host: Host) -> None:
    here, there = host.ram(1), host.ram()
    with SendSession(host.launched(here), host.certificates) as sending:
        target, receiving = arriving(host, sending)
        rows = sent_in_rows(sending, here, there)
        rows.contents[2, 100] ^= 1
        with pytest.raises(FirmwareRefused, match="BAD_MEASUREMENT"):
            receiving.receive_rows(rows)
        assert target.decrypted(there.address + PAGE, PAGE) == b"\2" * PAGE
        assert there.area[2 * PAGE :] == bytes([2]) * PAGE + bytes([3]) * PAGE


def test_a_part_of_a_page_can_be_sent(host: Host) -> None:
    here, there = host.ram(1), host.ram()
    with SendSession(host.launched(here), host.certificates) as sending:
        target, receiving = arriving(host, sending)
        packet = sending.packet()
        sending.send(packet, here.address + 64, 32)
        receiving.receive(packet, there.address + 64, 32)
        assert target.decrypted(there.address + 64, 32) == b"\1" * 32
        with pytest.raises(IoctlError, match=r"SEND_UPDATE_DATA\) failed: EINVAL: no such command"):
            sending.send(packet, here.address + 64, PAGE)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_whatever_ends_a_session_early_it_is_cancelled(
    host: Host, error: type[BaseException]
) -> None:
    source = host.launched(host.ram())
    with pytest.raises(error), SendSession(source, host.certificates):
        raise error
    assert source.status().state == GuestState.RUNNING
    with SendSession(source, host.certificates) as again:
        again.cancel()
        assert source.status().state == GuestState.RUNNING
    assert source.status().state == GuestState.RUNNING


def test_a_session_whose_lengths_cannot_be_asked_for_is_cancelled(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = host.launched(host.ram())

    def interrupted(_self: SendSession) -> tuple[int, int]:
        raise KeyboardInterrupt

    monkeypatch.setattr(SendSession, "_lengths", interrupted)
    with pytest.raises(KeyboardInterrupt):
        SendSession(source, host.certificates)
    assert source.status().state == GuestState.RUNNING


def test_a_kernel_without_send_cancel_is_no_further_trouble(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = host.launched(host.ram())
    with SendSession(source, host.certificates):
        monkeypatch.setattr(uapi, "KVM_SEV_SEND_CANCEL", 99)
    assert source.status().state == GuestState.SEND_UPDATE


def test_a_closed_vm_leaves_nothing_in_the_firmware(host: Host) -> None:
    guest = host.launched(host.ram())
    assert host.platform.guest_count() == 1
    guest.vm.close()
    assert host.platform.guest_count() == 0


def test_wrong_certificates_are_named_as_such(host: Host) -> None:
    foreign = Chip("chip 1").certificates()
    mixed = replace(host.certificates, plat=foreign.plat_certs)
    with pytest.raises(FirmwareRefused) as caught:
        SendSession(host.launched(host.ram()), mixed)
    text = str(caught.value)
    assert text.startswith("KVM_MEMORY_ENCRYPT_OP(KVM_SEV_SEND_START) failed: EIO: ")
    assert "SEV_RET_INVALID_CERTIFICATE: the certificates are not those of one platform" in text
    assert (caught.value.command, caught.value.code) == (8, 6)
    assert caught.value.errno == errno.EIO


def test_a_guest_sent_to_another_chip_does_not_arrive_here(host: Host) -> None:
    other = Certificates(*Chip("chip 1").certificates())
    sending = SendSession(host.launched(host.ram()), other)
    with pytest.raises(FirmwareRefused, match="BAD_MEASUREMENT"):
        arriving(host, sending)
    there = FakeBackend(replace(host_named("sev"), chip="chip 1"))
    with Host(there) as target:
        pdh = host.certificates.pdh
        ReceiveSession(target.guest(), sending.policy, pdh, sending.session)


def test_commands_in_the_wrong_state_say_so(host: Host) -> None:
    source = host.launched(host.ram())
    with pytest.raises(FirmwareRefused, match="SEV_RET_INVALID_GUEST_STATE: the guest is not in"):
        source.issue(uapi.KVM_SEV_SEND_FINISH)
    with pytest.raises(FirmwareRefused, match="SEV_RET_ASID_OWNED"):
        source.issue(uapi.KVM_SEV_LAUNCH_START, uapi.kvm_sev_launch_start())
    with pytest.raises(FirmwareRefused, match="INVALID_GUEST_STATE"):
        SendSession(SevGuest(_launching(host).vm, host.platform), host.certificates)


def _launching(host: Host) -> SevGuest:
    guest = host.guest()
    guest.issue(uapi.KVM_SEV_LAUNCH_START, uapi.kvm_sev_launch_start())
    return guest


def test_policies_are_told_and_obeyed(host: Host) -> None:
    ram = host.ram()
    guest = host.launched(ram, policy=0b1001)
    assert guest.status().policy == 0b1001
    with pytest.raises(FirmwareRefused, match="POLICY_FAILURE: the guest's policy forbids it"):
        guest.decrypted(ram.address, 16)
    with pytest.raises(FirmwareRefused, match="POLICY_FAILURE"):
        SendSession(guest, host.certificates)


def test_memory_that_is_not_there_cannot_be_pinned(host: Host) -> None:
    guest = host.guest()
    with pytest.raises(IoctlError, match=r"REG_REGION.*ENOMEM: the memory is not mapped, or more"):
        guest.register(0x1000, PAGE)
    ram = host.ram()
    guest.register(ram.address, NPAGES * PAGE)


def test_another_process_is_told_so_and_not_that_the_firmware_refused(host: Host) -> None:
    guest = host.launched(host.ram())
    child = os.fork()
    if child == 0:
        try:
            guest.status()
            os._exit(1)
        except FirmwareRefused:
            os._exit(2)
        except WrongProcess:
            os._exit(0)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_hosts_without_sev_have_neither_guests_nor_a_platform() -> None:
    backend = FakeBackend(host_named("mainline"))
    with pytest.raises(HostError, match="cannot open /dev/sev: ENOENT: no SEV firmware driver"):
        SevPlatform(backend)
    with Host(FakeBackend(host_named("sev"))) as other, KvmSystem.open(backend) as system:
        before = set(backend.kernel._files)
        with pytest.raises(NotSupported):
            SevGuest.create(system, other.platform)
        assert set(backend.kernel._files) == before, "the VM is closed again"
