"""SEV guests through kvmenc's handles, on a fake host."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from kvmenc.firmware import Certificates, SevGuest, SevPlatform
from kvmenc.guest.scratch import PAGE, GuestRam
from kvmenc.kvm import KvmSystem

if TYPE_CHECKING:
    from types import TracebackType

    from kvmenc.backend.fake import FakeBackend

NPAGES = 4


class Host:
    """An open system and platform, certificates of its chip, and a maker of guests."""

    def __init__(self, backend: FakeBackend) -> None:
        self._cleanup = ExitStack()
        self.backend = backend
        self.firmware = backend.kernel.firmware
        self.certificates = Certificates(*self.firmware.chip.certificates())

    def __enter__(self) -> Self:
        self.system = self._cleanup.enter_context(KvmSystem.open(self.backend))
        self.platform = self._cleanup.enter_context(SevPlatform(self.backend))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def ram(self, fill: int = 0) -> GuestRam:
        ram = GuestRam("ram", NPAGES)
        ram.area[:] = b"".join(bytes([fill + page]) * PAGE for page in range(NPAGES))
        self._cleanup.callback(ram.close)
        return ram

    def guest(self) -> SevGuest:
        return self._cleanup.enter_context(SevGuest.create(self.system, self.platform))

    def launched(self, ram: GuestRam, policy: int = 0) -> SevGuest:
        guest = self.guest()
        guest.launch(ram.address, NPAGES * PAGE, policy)
        return guest
