"""How quick this host's SEV firmware is: one scratch guest sent to another on the same host.

Batches of pages are sent and then received, in turn, so that whatever else happens on the host
happens to both. A rate is pages by the time that the commands took; what a migration does between
them is not in it.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import msgspec

from fakekvm import host_named
from fakekvm.host import FirmwareSpeed
from kvmenc import uapi
from kvmenc.backend import LocalBackend
from kvmenc.backend.fake import FakeBackend
from kvmenc.backend.kinds import clock_of, fake_kernel
from kvmenc.backend.replay import ReplayBackend
from kvmenc.errors import HostError, IoctlError, NotSupported
from kvmenc.firmware import Certificates, SevPlatform
from kvmenc.kvm import KvmSystem
from kvmenc.probe.clock import Clock, Rate
from kvmenc.probe.cpu import is_hygon
from kvmenc.probe.pair import PAGES, Contents, Pair

if TYPE_CHECKING:
    from collections.abc import Callable

    from kvmenc.backend import Backend

__all__ = [
    "FirmwareMeasure",
    "known_certificates",
    "measure_firmware",
    "open_sev_backend",
    "require_sev",
]

#: As many are sent before they are received: 80 ms at 400 pages/s.
_BATCH_PAGES = 32
#: Rates of the slow and the quick tenth of batches that differ by more are not one user's.
_STEADY = 0.15
#: "between 350-450": A. Kalra, AMDESE/qemu 119bb3f02c.
_PUBLISHED_PPS = 400.0


class FirmwareMeasure(msgspec.Struct, frozen=True, kw_only=True):
    """What was measured.

    Attributes:
        schema: ``kvmenc.firmware/1``.
        backend: whose firmware it is.
        seconds: how long was measured.
        send: one page a command.
        receive: likewise.
        batch_send: many a command, on Hygon's CPUs; else None.
        batch_receive: likewise.
        header_bytes: of a page, as the firmware says.
        contents_bytes: of a page, encrypted for the way.
        other_guests: how many SEV guests the firmware held beside ours; None if it does not say.
        steady: no sign of another user of the firmware in the rates.
        private_rate_pps: what ``kvmenc plan --private-rate`` takes: the slower of both ways.
        contents: whether what arrived is what was sent.
    """

    schema: Literal["kvmenc.firmware/1"] = "kvmenc.firmware/1"
    backend: str
    seconds: float
    send: Rate
    receive: Rate
    batch_send: Rate | None
    batch_receive: Rate | None
    header_bytes: int
    contents_bytes: int
    other_guests: int | None
    steady: bool
    private_rate_pps: float
    contents: Contents

    @property
    def wire_bytes(self) -> int:
        """Of a page, without what a migration stream puts around it."""
        return self.header_bytes + self.contents_bytes

    @property
    def passed(self) -> bool:
        """Nothing arrived changed."""
        return self.contents.equal is not False


def open_sev_backend(name: Literal["local", "fake"]) -> Backend:
    """This machine's KVM, or a fake one whose firmware has the published rate."""
    if name == "local":
        return LocalBackend()
    speed = FirmwareSpeed(send=_PUBLISHED_PPS, receive=_PUBLISHED_PPS)
    return FakeBackend(replace(host_named("sev"), firmware=speed))


def known_certificates(backend: Backend) -> Certificates | None:
    """The fake platform's own, or the recorded; None of a real one: its owner must export them."""
    if isinstance(backend, ReplayBackend):
        found = backend.certificates()
        return Certificates(*found) if found else None
    kernel = fake_kernel(backend)
    return Certificates(*kernel.firmware.chip.certificates()) if kernel else None


def require_sev(backend: Backend) -> None:
    """Check that SEV guests can be made and /dev/sev be opened.

    Raises:
        NoKvm: there is no KVM.
        HostError: no SEV here, or no right to use it.
    """
    with KvmSystem.open(backend) as system, system.create_vm() as scratch:
        try:
            scratch.ioctl(uapi.KVM_MEMORY_ENCRYPT_OP, 0)
        except NotSupported:
            msg = (
                "KVM has no SEV on this host: there is no firmware to measure (see `kvmenc probe`)"
            )
            raise HostError(msg) from None
        except IoctlError:
            pass  # an old kernel with SEV, which wants an argument
    with SevPlatform(backend):
        pass


def measure_firmware(
    backend: Backend,
    certificates: Certificates,
    *,
    seconds: float = 10.0,
    root: Path = Path("/"),
    now: Callable[[], float] = time.perf_counter,
    update: Callable[[float], object] = lambda _seconds: None,
) -> FirmwareMeasure:
    """Send one scratch guest to another, for so many seconds.

    Args:
        backend: whose KVM.
        certificates: of this host's platform, which both sends and receives.
        seconds: at least; three batches are measured whatever they take.
        root: where the machine's files are; not looked at for a fake KVM.
        now: the time in seconds.
        update: told how many seconds have been measured.

    Raises:
        HostError: the host or its firmware cannot do it.
        InputError: the firmware does not accept the certificates.
    """
    with Pair(backend, certificates) as pair:
        hygon = is_hygon(pair.system, root)
        share = seconds / 2 if hygon else seconds
        now = clock_of(backend, now)
        single = Clock(pair.send, pair.receive, 1, now)
        single.run(pair.rounds(_BATCH_PAGES), share, update)
        batch = Clock(pair.send_many, pair.receive_many, PAGES, now)
        if hygon:
            batch.run(pair.rounds(PAGES), share, lambda done: update(share + done))
        return _result(backend.name, seconds, pair, single, batch if hygon else None)


def _result(
    name: str, seconds: float, pair: Pair, single: Clock, batch: Clock | None
) -> FirmwareMeasure:
    send, receive = single.rates("KVM_SEV_SEND_UPDATE_DATA", "KVM_SEV_RECEIVE_UPDATE_DATA")
    batched = batch.rates("KVM_CSV_COMMAND_BATCH", "KVM_CSV_COMMAND_BATCH") if batch else None
    measured = [send, receive, *(batched or ())]
    others = pair.other_guests()
    return FirmwareMeasure(
        backend=name,
        seconds=seconds,
        send=send,
        receive=receive,
        batch_send=batched[0] if batched else None,
        batch_receive=batched[1] if batched else None,
        header_bytes=pair.sending.hdr_len,
        contents_bytes=pair.sending.trans_len,
        other_guests=others,
        steady=all(rate.spread <= _STEADY for rate in measured),
        private_rate_pps=min(rate.pages_per_s for rate in measured[-2:]),
        contents=pair.finish(),
    )
