"""Two scratch SEV guests on one host, one being sent to the other."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

import msgspec
import numpy as np

from kvmenc import uapi
from kvmenc.errors import InputError
from kvmenc.firmware import (
    Certificates,
    FirmwareRefused,
    Packet,
    ReceiveSession,
    SendSession,
    SevGuest,
    SevPlatform,
)
from kvmenc.guest.scratch import PAGE, GuestRam
from kvmenc.kvm import KvmSystem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kvmenc.backend import Backend

__all__ = ["PAGES", "Contents", "Pair"]

#: Of each of the two guests: little enough to be pinned.
PAGES = 512
#: Compared in the clear at the end: each takes a command.
_COMPARED_PAGES = 64
_BAD_CERTIFICATES = {uapi.SEV_RET_INVALID_CERTIFICATE, uapi.SEV_RET_BAD_SIGNATURE}


class Contents(msgspec.Struct, frozen=True):
    """What is known of what arrived.

    Attributes:
        compared_pages: read in the clear and compared; 0 if the firmware did not allow it.
        equal: all of these were what had been sent; None if none was compared.
        how: by what.
    """

    compared_pages: int
    equal: bool | None
    how: str


class Pair:
    """Two scratch guests with a session between them; a context manager that leaves none open."""

    def __init__(self, backend: Backend, certificates: Certificates) -> None:
        self._cleanup = ExitStack()
        try:
            self._build(backend, certificates)
        except BaseException:
            self._cleanup.close()
            raise

    def _build(self, backend: Backend, certificates: Certificates) -> None:
        enter = self._cleanup.enter_context
        self.system = enter(KvmSystem.open(backend))
        self._platform = enter(SevPlatform(backend))
        self._others = self._platform.guest_count()
        self._source, self._target = self._ram("source"), self._ram("target")
        sender = enter(SevGuest.create(self.system, self._platform))
        self._receiver = enter(SevGuest.create(self.system, self._platform))
        sender.register(self._source.address, PAGES * PAGE)
        self._receiver.register(self._target.address, PAGES * PAGE)
        self._sent: bytes = _noise().tobytes()
        self._source.area[:] = self._sent
        sender.launch(self._source.address, PAGES * PAGE)
        self.sending = enter(_accepted(sender, certificates))
        policy, session = self.sending.policy, self.sending.session
        self._receiving = _arriving(self._receiver, policy, certificates, session)
        self._packets: list[Packet] = []
        self._arrived: set[int] = set()

    def _ram(self, name: str) -> GuestRam:
        ram = GuestRam(name, PAGES)
        self._cleanup.callback(ram.close)
        return ram

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    def rounds(self, npages: int) -> Iterator[list[int]]:
        """The pages of each batch of ``npages``, all pages in turn, without an end."""
        while len(self._packets) < npages:
            self._packets.append(self.sending.packet())
        first = 0
        while True:
            pages = [(first + number) % PAGES for number in range(npages)]
            self._arrived.update(pages)
            yield pages
            first += npages

    def send(self, packets: slice, pages: Sequence[int]) -> None:
        """One page in one command."""
        for packet, page in zip(self._packets[packets], pages, strict=True):
            self.sending.send(packet, self._source.address + page * PAGE)

    def receive(self, packets: slice, pages: Sequence[int]) -> None:
        """The same, at the other guest."""
        for packet, page in zip(self._packets[packets], pages, strict=True):
            self._receiving.receive(packet, self._target.address + page * PAGE)

    def send_many(self, packets: slice, pages: Sequence[int]) -> None:
        """All in one command."""
        self.sending.send_many(*self._each(packets, pages, self._source))

    def receive_many(self, packets: slice, pages: Sequence[int]) -> None:
        """The same, at the other guest."""
        self._receiving.receive_many(*self._each(packets, pages, self._target))

    def _each(
        self, packets: slice, pages: Sequence[int], ram: GuestRam
    ) -> tuple[list[Packet], list[int]]:
        return self._packets[packets], [ram.address + page * PAGE for page in pages]

    def other_guests(self) -> int | None:
        """The most that the firmware held beside ours, at the start and now."""
        now = self._platform.guest_count()
        if now is None or self._others is None:
            return None
        return max(self._others, now - 2)

    def finish(self) -> Contents:
        """End the session, and look at what arrived as far as the firmware lets us."""
        self.sending.finish()
        self._receiving.finish()
        pages = sorted(self._arrived)
        pages = pages[:: -(-len(pages) // _COMPARED_PAGES)]
        try:
            equal = all(self._is_equal(page) for page in pages)
        except FirmwareRefused as refusal:
            how = f"the firmware authenticated each page; none was compared: {refusal.hint}"
            return Contents(0, None, how)
        return Contents(len(pages), equal, "KVM_SEV_DBG_DECRYPT in the guest that received")

    def _is_equal(self, page: int) -> bool:
        plain = self._receiver.decrypted(self._target.address + page * PAGE, PAGE)
        return plain == self._sent[page * PAGE : (page + 1) * PAGE]


def _accepted(sender: SevGuest, certificates: Certificates) -> SendSession:
    """A session under the user's certificates; that they are wrong is the input's fault."""
    try:
        return SendSession(sender, certificates)
    except FirmwareRefused as refusal:
        if refusal.code in _BAD_CERTIFICATES:
            raise InputError(f"--pdh, --plat-cert, --amd-cert: {refusal.hint}") from refusal
        raise


def _arriving(
    receiver: SevGuest, policy: int, certificates: Certificates, session: bytes
) -> ReceiveSession:
    """Both platforms are this one: sent under another's certificates nothing can arrive here."""
    try:
        return ReceiveSession(receiver, policy, certificates.pdh, session)
    except FirmwareRefused as refusal:
        if refusal.code in _BAD_CERTIFICATES | {uapi.SEV_RET_BAD_MEASUREMENT}:
            msg = f"--pdh: not the certificate that this host has now: {refusal.hint}"
            raise InputError(msg) from refusal
        raise


def _noise() -> NDArray[np.uint8]:
    """What is sent: pages that differ, and that no compression would shorten."""
    return np.random.default_rng(55766).integers(0, 256, (PAGES, PAGE), np.uint8)
