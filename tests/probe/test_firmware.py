"""The firmware's rate, measured on a fake whose rate is known."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from fakekvm import Host, host_named
from fakekvm.clock import HeldClock, MachineClock
from fakekvm.host import FirmwareSpeed
from fakekvm.sevcerts import Chip
from kvmenc import uapi
from kvmenc.backend.fake import FakeBackend
from kvmenc.errors import HostError, InputError
from kvmenc.firmware import Certificates, Packet, ReceiveSession, SendSession, SevGuest, SevPlatform
from kvmenc.guest.scratch import PAGE, GuestRam
from kvmenc.kvm import KvmSystem
from kvmenc.probe.cpu import is_hygon
from kvmenc.probe.firmware import FirmwareMeasure, measure_firmware, require_sev

if TYPE_CHECKING:
    import ctypes
    from collections.abc import Callable, Iterator
    from pathlib import Path

UPDATES = {uapi.KVM_SEV_SEND_UPDATE_DATA, uapi.KVM_SEV_RECEIVE_UPDATE_DATA}
CERTIFICATES = Certificates(*Chip(Host().chip).certificates())


class Fake(FakeBackend):
    """A host whose firmware has these rates, by a clock that only the firmware moves."""

    def __init__(self, name: str = "sev", **speed: float) -> None:
        super().__init__(replace(host_named(name), firmware=FirmwareSpeed(**speed)))
        self.clock = self.kernel.firmware.clock = HeldClock()

    def measure(
        self, seconds: float = 1.0, update: Callable[[float], object] = lambda _: None
    ) -> FirmwareMeasure:
        now = self.clock.now
        return measure_firmware(self, CERTIFICATES, seconds=seconds, now=now, update=update)


@contextmanager
def another_user(backend: Fake, monkeypatch: pytest.MonkeyPatch) -> Iterator[SendSession]:
    """A guest of which a page is sent between any two commands of others, as long as it lives."""
    ram = GuestRam("other", 1)
    with (
        KvmSystem.open(backend) as system,
        SevPlatform(backend) as platform,
        SevGuest.create(system, platform) as guest,
        monkeypatch.context() as patch,
    ):
        guest.launch(ram.address, PAGE)
        with SendSession(guest, CERTIFICATES) as session:
            packet, plain = session.packet(), SevGuest.issue

            def queued(self: SevGuest, number: int, data: ctypes.Structure | None = None) -> None:
                if number in UPDATES and self is not guest:
                    session.send(packet, ram.address)
                plain(self, number, data)

            patch.setattr(SevGuest, "issue", queued)
            yield session
    ram.close()


def is_left_alone(backend: FakeBackend) -> bool:
    return backend.kernel.firmware.guest_count == 0 and not backend.kernel._files


@pytest.mark.parametrize(("send", "receive"), [(400, 400), (300, 600), (9000, 4500)])
def test_both_rates_are_found(send: float, receive: float) -> None:
    backend = Fake(send=send, receive=receive)
    found = backend.measure()
    assert found.send.pages_per_s == pytest.approx(send, rel=0.01)
    assert found.receive.pages_per_s == pytest.approx(receive, rel=0.01)
    assert found.private_rate_pps == pytest.approx(min(send, receive), rel=0.01)
    assert found.send.latency_p50_ms == pytest.approx(1e3 / send, rel=0.01)
    assert found.send.latency_p99_ms == pytest.approx(1e3 / send, rel=0.01)
    assert found.send.pages + found.receive.pages >= 0.9 / (1 / send + 1 / receive)
    assert found.steady
    assert is_left_alone(backend)


def test_both_rates_are_found_in_real_time() -> None:
    """Within a tenth of what bare waits come to on this machine just now, in one of five tries."""
    tries: list[tuple[tuple[float, float], float]] = []
    while len(tries) < 5:
        backend = Fake(send=100, receive=100)
        backend.kernel.firmware.clock = MachineClock()
        found = measure_firmware(backend, CERTIFICATES, seconds=1.5)
        rates, bare = (found.send.pages_per_s, found.receive.pages_per_s), _bare_waits_per_s(100)
        assert max(rates) < 101
        tries.append((rates, bare))
        if min(rates) > 0.9 * bare:
            return
    pytest.fail(f"never within a tenth: {tries}")


def _bare_waits_per_s(rate: float) -> float:
    clock = MachineClock()
    start = clock.now()
    for _ in range(40):
        clock.wait_until(clock.now() + 1 / rate)
    return 40 / (clock.now() - start)


def test_what_else_is_told() -> None:
    backend = Fake(send=2000, receive=2000)
    updates: list[float] = []
    found = backend.measure(0.3, updates.append)
    assert (found.header_bytes, found.contents_bytes, found.wire_bytes) == (52, 4096, 4148)
    assert (found.other_guests, found.batch_send, found.batch_receive) == (0, None, None)
    assert found.contents.equal
    assert found.contents.compared_pages > 30
    assert found.passed
    assert found.send.pages == found.receive.pages == 32 * found.send.batches
    assert updates == sorted(updates)
    assert is_left_alone(backend)


def test_three_batches_are_measured_however_short_the_time() -> None:
    assert Fake(send=400, receive=400).measure(0.001).send.batches == 3


def test_a_second_user_all_the_time_halves_the_rate_and_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backend = Fake(send=800, receive=800)
    with another_user(backend, monkeypatch):
        found = backend.measure()
        assert found.send.pages_per_s == pytest.approx(400, rel=0.01)
        assert found.receive.pages_per_s == pytest.approx(400, rel=0.01)
        assert found.other_guests == 1
        assert found.steady, "that is what cannot be seen, and is said"


def test_a_second_user_for_a_while_shows_in_the_spread(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Fake(send=800, receive=800)
    with ExitStack() as stack:
        stack.enter_context(another_user(backend, monkeypatch))
        found = backend.measure(2, lambda seconds: stack.close() if seconds > 1 else None)
    assert not found.steady
    assert found.send.slow_pages_per_s == pytest.approx(400, rel=0.01)
    assert found.send.quick_pages_per_s == pytest.approx(800, rel=0.01)


def test_hygons_batches_are_measured_too_and_decide() -> None:
    found = Fake("csv", send=400, receive=400, batch=3000).measure(2)
    assert found.send.pages_per_s == pytest.approx(400, rel=0.01)
    for rate in (found.batch_send, found.batch_receive):
        assert rate is not None
        assert rate.pages_per_s == pytest.approx(3000, rel=0.01)
        assert (rate.command, rate.pages_per_command) == ("KVM_CSV_COMMAND_BATCH", 512)
    assert found.private_rate_pps == pytest.approx(3000, rel=0.01)
    assert found.contents.equal


def test_the_batch_command_is_issued_on_hygons_cpus_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issued: list[int] = []
    plain = SevGuest.issue

    def watched(self: SevGuest, number: int, *rest: object) -> None:
        issued.append(number)
        plain(self, number, *rest)  # type: ignore[arg-type]  # passed on as it came

    monkeypatch.setattr(SevGuest, "issue", watched)
    Fake(send=400, receive=400).measure(0.05)
    assert uapi.KVM_SEV_SEND_UPDATE_DATA in issued
    assert uapi.KVM_CSV_COMMAND_BATCH not in issued
    (tmp_path / "proc").mkdir()
    cpuinfo = tmp_path / "proc/cpuinfo"
    for vendor in ("HygonGenuine", "AuthenticAMD"):
        cpuinfo.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\n")
        with KvmSystem.open(Fake("csv")) as system:
            assert is_hygon(system, tmp_path)
            system.backend = _Real(system.backend)  # type: ignore[assignment, arg-type]
            assert is_hygon(system, tmp_path) == (vendor == "HygonGenuine")


class _Real:
    """A backend that is not the fake's class."""

    def __init__(self, lower: FakeBackend) -> None:
        self.ioctl, self.close = lower.ioctl, lower.close


def test_pages_that_arrive_changed_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = Fake(send=400, receive=400)
    plain = ReceiveSession.receive

    seen: list[int] = []

    def to_the_first_page(self: ReceiveSession, packet: Packet, address: int) -> None:
        seen.append(address)
        plain(self, packet, seen[0])

    monkeypatch.setattr(ReceiveSession, "receive", to_the_first_page)
    found = backend.measure(0.05)
    assert found.contents.equal is False
    assert not found.passed


def test_a_firmware_that_shows_nothing_is_believed_by_its_macs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uapi, "KVM_SEV_DBG_DECRYPT", uapi.KVM_SEV_SEND_FINISH)
    found = Fake(send=400, receive=400).measure(0.05)
    assert (found.contents.compared_pages, found.contents.equal) == (0, None)
    assert found.contents.how.startswith("the firmware authenticated each page; none was compared")
    assert found.passed


@pytest.mark.parametrize("name", ["sev", "snp", "csv", "sev-v2-2019"])
def test_hosts_with_sev_pass(name: str) -> None:
    backend = Fake(name)
    require_sev(backend)
    assert is_left_alone(backend)


def test_a_host_without_sev_is_told_so() -> None:
    backend = FakeBackend(Host())
    with pytest.raises(HostError, match="KVM has no SEV on this host"):
        require_sev(backend)
    assert is_left_alone(backend)


@pytest.mark.parametrize("which", ["pdh", "plat", "amd"])
def test_certificates_that_the_firmware_refuses_are_bad_input(which: str) -> None:
    backend = Fake(send=400, receive=400)
    wrong = replace(CERTIFICATES, **{which: b"wrong"})
    with pytest.raises(InputError, match=r"--pdh, --plat-cert, --amd-cert: .*INVALID_CERTIFICATE"):
        measure_firmware(backend, wrong, seconds=0.05)
    assert is_left_alone(backend)


@pytest.mark.parametrize("at", [0.0, 0.2])
def test_ctrl_c_leaves_no_session_and_no_descriptor(at: float) -> None:
    backend = Fake(send=400, receive=400)
    states: list[int] = []

    def update(seconds: float) -> None:
        if seconds >= at:
            states.extend(backend.kernel.firmware._guests)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        backend.measure(5, update)
    assert len(states) == 2
    assert is_left_alone(backend)
