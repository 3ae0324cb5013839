"""Sending a guest and receiving one: sessions between the firmware of two platforms."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import numpy as np

from kvmenc import uapi
from kvmenc.errors import HostError
from kvmenc.firmware.packets import PAGE_BYTES, Packet, PacketRows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.firmware.certificates import Certificates
    from kvmenc.firmware.guest import SevGuest

__all__ = ["ReceiveSession", "SendSession"]


class SendSession:
    """A guest that is being sent: SEND_START was done.

    A context manager that cancels a session which was not finished, so that the guest stays.

    Args:
        guest: launched, not running in parts of memory that are sent meanwhile.
        target: certificates of the platform that is to receive.

    Attributes:
        policy: the guest's.
        session: what the receiver needs beside the sender's PDH certificate.
        hdr_len: bytes of a page's header.
        trans_len: bytes of a page's contents on the wire.

    Raises:
        FirmwareRefused: INVALID_CERTIFICATE, INVALID_GUEST_STATE, POLICY_FAILURE.
    """

    def __init__(self, guest: SevGuest, target: Certificates) -> None:
        self._guest = guest
        self._open = False
        asked = uapi.kvm_sev_send_start()
        guest.length_of(uapi.KVM_SEV_SEND_START, asked)
        self.policy, self.session = self._start(target, asked.session_len)
        self._open = True
        try:
            self.hdr_len, self.trans_len = self._lengths()
        except BaseException:
            self._cancel_quietly()
            raise

    def _start(self, target: Certificates, session_len: int) -> tuple[int, bytes]:
        # from_buffer_copy keeps each alive during the call, as does `session`.
        pdh, plat, amd = (_buffer(it) for it in (target.pdh, target.plat, target.amd))
        session = ctypes.create_string_buffer(session_len)
        start = uapi.kvm_sev_send_start(
            pdh_cert_uaddr=ctypes.addressof(pdh),
            pdh_cert_len=len(target.pdh),
            plat_certs_uaddr=ctypes.addressof(plat),
            plat_certs_len=len(target.plat),
            amd_certs_uaddr=ctypes.addressof(amd),
            amd_certs_len=len(target.amd),
            session_uaddr=ctypes.addressof(session),
            session_len=session_len,
        )
        self._guest.issue(uapi.KVM_SEV_SEND_START, start)
        return start.policy, session.raw[: start.session_len]

    def _lengths(self) -> tuple[int, int]:
        """The firmware tells the header's; where it leaves the contents to us, they are a page."""
        asked = uapi.kvm_sev_send_update_data()
        self._guest.length_of(uapi.KVM_SEV_SEND_UPDATE_DATA, asked)
        return asked.hdr_len, max(asked.trans_len, PAGE_BYTES)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cancel_quietly()

    def packet(self) -> Packet:
        """Room for a page of this session."""
        return Packet(self.hdr_len, self.trans_len)

    def rows(self, count: int) -> PacketRows:
        """Room for so many."""
        shapes = (count, self.hdr_len), (count, self.trans_len)
        return PacketRows(*(np.zeros(shape, np.uint8) for shape in shapes))

    def send(self, packet: Packet, address: int, size: int = PAGE_BYTES) -> None:
        """Encrypt private memory for the way, into ``packet``.

        Args:
            packet: of this session.
            address: of the memory; within a page.
            size: bytes.
        """
        self._guest.issue(uapi.KVM_SEV_SEND_UPDATE_DATA, packet.at(address, size))

    def send_rows(self, rows: PacketRows, count: int) -> None:
        """Encrypt the memory of the first ``count`` rows, by a command each.

        Raises:
            FirmwareRefused: of one; those before it may be used.
        """
        self._guest.issue_each(uapi.KVM_SEV_SEND_UPDATE_DATA, rows.args[:count])

    def send_many(self, packets: Sequence[Packet], addresses: Sequence[int]) -> None:
        """Hygon's: a page for each packet, in one command. Never to be tried on another CPU.

        Raises:
            FirmwareRefused: none of them is to be used.
        """
        _batch(self._guest, uapi.KVM_SEV_SEND_UPDATE_DATA, packets, addresses)

    def finish(self) -> None:
        """The guest is gone: it can run here no more."""
        self._guest.issue(uapi.KVM_SEV_SEND_FINISH)
        self._open = False

    def cancel(self) -> None:
        """The guest stays, and the session's packets are worth nothing."""
        self._guest.issue(uapi.KVM_SEV_SEND_CANCEL)
        self._open = False

    def _cancel_quietly(self) -> None:
        """Kernels before v5.14 have no such command; closing the VM ends the session too."""
        if self._open:
            with suppress(HostError):
                self.cancel()
            self._open = False


class ReceiveSession:
    """A guest that arrives: RECEIVE_START took the place of LAUNCH_START.

    Args:
        guest: not launched.
        policy: as the sender's firmware told it.
        sender_pdh: the sending platform's PDH certificate.
        session: from the sender.

    Raises:
        FirmwareRefused: BAD_MEASUREMENT, INVALID_CERTIFICATE.
    """

    def __init__(self, guest: SevGuest, policy: int, sender_pdh: bytes, session: bytes) -> None:
        self._guest = guest
        pdh, blob = _buffer(sender_pdh), _buffer(session)  # alive during the call
        start = uapi.kvm_sev_receive_start(
            policy=policy,
            pdh_uaddr=ctypes.addressof(pdh),
            pdh_len=len(sender_pdh),
            session_uaddr=ctypes.addressof(blob),
            session_len=len(session),
        )
        guest.issue(uapi.KVM_SEV_RECEIVE_START, start)

    def receive(self, packet: Packet, address: int, size: int = PAGE_BYTES) -> None:
        """Put a page that was sent at ``address``, under this guest's key.

        Raises:
            FirmwareRefused: BAD_MEASUREMENT: it was changed on its way; nothing is written.
        """
        self._guest.issue(uapi.KVM_SEV_RECEIVE_UPDATE_DATA, packet.at(address, size))

    def receive_rows(self, rows: PacketRows) -> None:
        """Put each row where it is to lie, by a command each.

        Raises:
            FirmwareRefused: BAD_MEASUREMENT: one was changed on its way; it and those after it are
                not written.
        """
        self._guest.issue_each(uapi.KVM_SEV_RECEIVE_UPDATE_DATA, rows.args)

    def receive_many(self, packets: Sequence[Packet], addresses: Sequence[int]) -> None:
        """Hygon's, as ``SendSession.send_many``."""
        _batch(self._guest, uapi.KVM_SEV_RECEIVE_UPDATE_DATA, packets, addresses)

    def finish(self) -> None:
        """The guest may run here."""
        self._guest.issue(uapi.KVM_SEV_RECEIVE_FINISH)


def _buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, len(content))


def _batch(
    guest: SevGuest, command: int, packets: Sequence[Packet], addresses: Sequence[int]
) -> None:
    nodes = (uapi.kvm_csv_batch_list_node * len(packets))()
    first, node_bytes = ctypes.addressof(nodes), ctypes.sizeof(uapi.kvm_csv_batch_list_node)
    for number, (packet, address) in enumerate(zip(packets, addresses, strict=True)):
        nodes[number].cmd_data_addr = ctypes.addressof(packet.at(address))
        nodes[number].next_cmd_addr = first + (number + 1) * node_bytes
    nodes[len(packets) - 1].next_cmd_addr = 0
    batch = uapi.kvm_csv_command_batch(command_id=command, csv_batch_list_uaddr=first)
    guest.issue(uapi.KVM_CSV_COMMAND_BATCH, batch)
