"""SEV guests and their sessions of sending and receiving, through the platform's firmware.

Thin: a method is one command of KVM_MEMORY_ENCRYPT_OP or a few, checked. Source of what each
command does: Linux v6.12, arch/x86/kvm/svm/sev.c, and AMD, "Secure Encrypted Virtualization API",
publication 55766.
"""

from __future__ import annotations

from kvmenc.firmware.certificates import Certificates, load_certificates
from kvmenc.firmware.guest import GuestState, SevGuest
from kvmenc.firmware.packets import Packet, PacketRows
from kvmenc.firmware.platform import SevPlatform
from kvmenc.firmware.refusal import FirmwareRefused
from kvmenc.firmware.sessions import ReceiveSession, SendSession

__all__ = [
    "Certificates",
    "FirmwareRefused",
    "GuestState",
    "Packet",
    "PacketRows",
    "ReceiveSession",
    "SendSession",
    "SevGuest",
    "SevPlatform",
    "load_certificates",
]
