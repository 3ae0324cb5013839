"""SEV guests and sessions, on the fake and on a host that has SEV.

The real half needs root, /dev/sev, and KVMENC_SEV_CERTS=DIR with pdh.cert, plat.cert, amd.cert.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from fakekvm import host_named
from fakekvm.exportcerts import export
from kvmenc import uapi
from kvmenc.backend import LocalBackend
from kvmenc.backend.fake import FakeBackend
from kvmenc.call import HINTS
from kvmenc.errors import HostError, IoctlError
from kvmenc.firmware import (
    Certificates,
    FirmwareRefused,
    GuestState,
    ReceiveSession,
    SendSession,
    SevGuest,
    SevPlatform,
    load_certificates,
)
from kvmenc.guest.scratch import PAGE, GuestRam
from kvmenc.kvm import KvmSystem
from kvmenc.probe.firmware import require_sev
from tests.contract.test_hints import SEV_ROWS
from tests.support import need, need_kvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from kvmenc.backend import Backend

NPAGES = 4
FILES = ("pdh.cert", "plat.cert", "amd.cert")


class Sev(NamedTuple):
    """A launched guest, one that was only made, and memory of both."""

    certificates: Certificates
    source: SevGuest
    target: SevGuest
    here: GuestRam
    there: GuestRam


def _has_sev() -> bool:
    try:
        require_sev(LocalBackend())
    except HostError:
        return False
    return True


def _host(kind: str, tmp_path: Path) -> tuple[Backend, Certificates]:
    if kind == "fake":
        return FakeBackend(host_named("sev")), load_certificates(*export(tmp_path))
    need_kvm()
    need(_has_sev(), "no SEV on this host", "KVMENC_REQUIRE_SEV")
    folder = Path(os.environ.get("KVMENC_SEV_CERTS", "."))
    paths = [folder / name for name in FILES]
    need(all(path.exists() for path in paths), "no KVMENC_SEV_CERTS=DIR", "KVMENC_REQUIRE_SEV")
    return LocalBackend(), load_certificates(*paths)


@pytest.fixture(params=["fake", pytest.param("local", marks=pytest.mark.kvm)])
def sev(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sev]:
    backend, certificates = _host(request.param, tmp_path)
    with ExitStack() as stack:
        enter = stack.enter_context
        system, platform = enter(KvmSystem.open(backend)), enter(SevPlatform(backend))
        here, there = GuestRam("here", NPAGES), GuestRam("there", NPAGES)
        stack.callback(here.close)
        stack.callback(there.close)
        source = enter(SevGuest.create(system, platform))
        target = enter(SevGuest.create(system, platform))
        for guest, ram in ((source, here), (target, there)):
            guest.register(ram.address, NPAGES * PAGE)
        here.area[:] = os.urandom(NPAGES * PAGE)
        yield Sev(certificates, source, target, here, there)


def test_a_guest_arrives_as_it_was_sent(sev: Sev) -> None:
    plain = sev.here.area[:]
    sev.source.launch(sev.here.address, NPAGES * PAGE)
    assert sev.source.status().state == GuestState.RUNNING
    with SendSession(sev.source, sev.certificates) as sending:
        assert sev.source.status().state == GuestState.SEND_UPDATE
        receiving = ReceiveSession(
            sev.target, sending.policy, sev.certificates.pdh, sending.session
        )
        packet = sending.packet()
        for page in range(NPAGES):
            sending.send(packet, sev.here.address + page * PAGE)
            receiving.receive(packet, sev.there.address + page * PAGE)
        sending.finish()
    receiving.finish()
    assert sev.source.status().state == GuestState.SENT
    assert sev.target.status().state == GuestState.RUNNING
    for page in range(NPAGES):
        found = sev.target.decrypted(sev.there.address + page * PAGE, PAGE)
        assert found == plain[page * PAGE : (page + 1) * PAGE]


def test_a_cancelled_guest_runs_on(sev: Sev) -> None:
    sev.source.launch(sev.here.address, NPAGES * PAGE)
    SendSession(sev.source, sev.certificates).cancel()
    assert sev.source.status().state == GuestState.RUNNING


def test_a_changed_packet_is_refused(sev: Sev) -> None:
    sev.source.launch(sev.here.address, NPAGES * PAGE)
    with SendSession(sev.source, sev.certificates) as sending:
        receiving = ReceiveSession(
            sev.target, sending.policy, sev.certificates.pdh, sending.session
        )
        packet = sending.packet()
        sending.send(packet, sev.here.address)
        contents = bytearray(packet.contents)
        contents[100] ^= 1
        packet.fill(packet.header, bytes(contents))
        with pytest.raises(FirmwareRefused) as caught:
            receiving.receive(packet, sev.there.address)
        assert caught.value.code in {uapi.SEV_RET_BAD_MEASUREMENT, uapi.SEV_RET_BAD_SIGNATURE}


def test_certificates_that_are_none_are_refused(sev: Sev) -> None:
    sev.source.launch(sev.here.address, NPAGES * PAGE)
    with pytest.raises(FirmwareRefused):
        SendSession(sev.source, Certificates(b"x" * 64, b"y" * 64, b"z" * 64))
    assert sev.source.status().state == GuestState.RUNNING


def test_sending_comes_after_launching(sev: Sev) -> None:
    sev.source.issue(uapi.KVM_SEV_LAUNCH_START, uapi.kvm_sev_launch_start())
    with pytest.raises(FirmwareRefused, match="INVALID_GUEST_STATE"):
        sev.source.issue(uapi.KVM_SEV_SEND_FINISH)


def _region(sev: Sev) -> None:
    sev.source.register(0x1000, PAGE)


def _unmapped(sev: Sev) -> None:
    update = uapi.kvm_sev_launch_update_data(uaddr=0x1000, len=PAGE)
    sev.source.issue(uapi.KVM_SEV_LAUNCH_UPDATE_DATA, update)


PROVOKE: dict[tuple[str, int], Callable[[Sev], object]] = {
    ("KVM_MEMORY_ENCRYPT_OP", errno.EBADF): lambda sev: sev.source.status(),
    ("KVM_MEMORY_ENCRYPT_OP", errno.EINVAL): lambda sev: sev.source.issue(
        uapi.KVM_SEV_SEND_UPDATE_VMSA
    ),
    ("KVM_MEMORY_ENCRYPT_OP", errno.ENOMEM): _unmapped,
    ("KVM_MEMORY_ENCRYPT_REG_REGION", errno.ENOMEM): _region,
}


def test_every_hint_is_provoked_but_that_of_snp() -> None:
    assert SEV_ROWS - PROVOKE.keys() == {("KVM_MEMORY_ENCRYPT_OP", errno.EPERM)}


@pytest.mark.parametrize("row", PROVOKE, ids=lambda row: f"{row[0]}-{errno.errorcode[row[1]]}")
def test_the_errno_comes_with_its_hint(sev: Sev, row: tuple[str, int]) -> None:
    with pytest.raises(IoctlError) as caught:
        PROVOKE[row](sev)
    assert str(caught.value).startswith(f"{row[0]}(")
    assert str(caught.value).endswith(f"failed: {errno.errorcode[row[1]]}: {HINTS[row]}")
