"""SEV's commands and structs, and Hygon's, decoded here and nowhere else, as in ``decode``.

Source: Linux v6.12, arch/x86/include/uapi/asm/kvm.h, include/uapi/linux/psp-sev.h; Hygon's:
openEuler's kernel, arch/x86/kvm/svm/csv.c, and QEMU 8.2.0, linux-headers/linux/kvm.h.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from fakekvm.decode import Layout

KVM_MEMORY_ENCRYPT_OP = 0xC008AEBA
KVM_MEMORY_ENCRYPT_REG_REGION = 0x8010AEBB
KVM_MEMORY_ENCRYPT_UNREG_REGION = 0x8010AEBC
SEV_ISSUE_CMD = 0xC0105300

INIT, ES_INIT, LAUNCH_START, LAUNCH_UPDATE_DATA, LAUNCH_UPDATE_VMSA = range(5)
LAUNCH_MEASURE, LAUNCH_FINISH, SEND_START, SEND_UPDATE_DATA = 6, 7, 8, 9
SEND_FINISH, RECEIVE_START, RECEIVE_UPDATE_DATA = 11, 12, 13
RECEIVE_FINISH, GUEST_STATUS, DBG_DECRYPT, SEND_CANCEL, INIT2 = 15, 16, 17, 21, 22
CSV_COMMAND_BATCH = 24
SNP_LAUNCH_START = 100

# /dev/sev
PLATFORM_STATUS, PDH_CERT_EXPORT, SEV_MAX = 1, 5, 12

BLOB_MAX_BYTES = 0x4000  # SEV_FW_BLOB_MAX_SIZE
KMALLOC_MAX_BYTES = 1 << 22  # of a buffer whose size the caller chooses

# What the firmware answers
SUCCESS = 0x00
INVALID_GUEST_STATE = 0x02
INVALID_LEN = 0x04
INVALID_CERTIFICATE = 0x06
POLICY_FAILURE = 0x07
INVALID_ADDRESS = 0x09
BAD_MEASUREMENT = 0x0B
ASID_OWNED = 0x0C
INVALID_GUEST = 0x10
UNSUPPORTED = 0x15

# A guest's policy
POLICY_NODBG = 1 << 0
POLICY_NOSEND = 1 << 3


@dataclass(slots=True)
class Command:
    """struct kvm_sev_cmd. ``error`` is written back.

    Attributes:
        entered: when it was issued. What the fake itself needs for it is within its time.
        ends: it is not to return before that.
    """

    id: int
    data: int
    error: int
    sev_fd: int
    entered: float = 0.0
    ends: float = 0.0

    def packed(self) -> bytes:
        """Its bytes."""
        return COMMAND.pack(self.id, self.data, self.error, self.sev_fd)


COMMAND = struct.Struct("<IxxxxQII")


@dataclass(slots=True)
class IssueCmd:
    """struct sev_issue_cmd. ``error`` is written back."""

    cmd: int
    data: int
    error: int


ISSUE_CMD = struct.Struct("<IQI")
STATUS = struct.Struct("<BBBIBI")  # struct sev_user_data_status


class Init(NamedTuple):
    """struct kvm_sev_init."""

    vmsa_features: int
    flags: int
    ghcb_version: int


class LaunchStart(NamedTuple):
    """struct kvm_sev_launch_start."""

    handle: int
    policy: int
    dh_uaddr: int
    dh_len: int
    session_uaddr: int
    session_len: int


class Blob(NamedTuple):
    """struct kvm_sev_launch_update_data and kvm_sev_launch_measure."""

    uaddr: int
    len: int


class SendStart(NamedTuple):
    """struct kvm_sev_send_start."""

    policy: int
    pdh_cert_uaddr: int
    pdh_cert_len: int
    plat_certs_uaddr: int
    plat_certs_len: int
    amd_certs_uaddr: int
    amd_certs_len: int
    session_uaddr: int
    session_len: int


class Packet(NamedTuple):
    """struct kvm_sev_send_update_data and kvm_sev_receive_update_data."""

    hdr_uaddr: int
    hdr_len: int
    guest_uaddr: int
    guest_len: int
    trans_uaddr: int
    trans_len: int

    @property
    def is_whole(self) -> bool:
        """No address is NULL, no length is 0, and the guest's memory is within a page."""
        return all(self) and self.guest_len + self.guest_uaddr % 4096 <= 4096

    @property
    def is_too_large(self) -> bool:
        """There is no kernel memory for its header or its contents: ENOMEM."""
        return self.hdr_len > KMALLOC_MAX_BYTES or self.trans_len > KMALLOC_MAX_BYTES


class ReceiveStart(NamedTuple):
    """struct kvm_sev_receive_start."""

    handle: int
    policy: int
    pdh_uaddr: int
    pdh_len: int
    session_uaddr: int
    session_len: int


class Debug(NamedTuple):
    """struct kvm_sev_dbg."""

    src_uaddr: int
    dst_uaddr: int
    len: int


class Region(NamedTuple):
    """struct kvm_enc_region."""

    addr: int
    size: int


class CertExport(NamedTuple):
    """struct sev_user_data_pdh_cert_export."""

    pdh_cert_address: int
    pdh_cert_len: int
    cert_chain_address: int
    cert_chain_len: int


class Batch(NamedTuple):
    """struct kvm_csv_command_batch."""

    command_id: int
    list_uaddr: int


class Node(NamedTuple):
    """struct kvm_csv_batch_list_node."""

    cmd_data_addr: int
    addr: int
    next_cmd_addr: int


INIT2_DATA = Layout("<QIHxx32x", Init)
LAUNCH_START_DATA = Layout("<IIQIxxxxQIxxxx", LaunchStart)
BLOB = Layout("<QIxxxx", Blob)
SEND_START_DATA = Layout("<IxxxxQIxxxxQIxxxxQIxxxxQIxxxx", SendStart)
_PACKET = "<QIxxxxQIxxxxQIxxxx"
PACKET = Layout(_PACKET, Packet)
PACKET_STRUCT = struct.Struct(_PACKET)
RECEIVE_START_DATA = Layout("<IIQIxxxxQIxxxx", ReceiveStart)
GUEST_STATUS_DATA = struct.Struct("<III")  # handle, policy, state
DEBUG = Layout("<QQIxxxx", Debug)
REGION = Layout("<QQ", Region)
CERT_EXPORT = Layout("<QIQI", CertExport)
BATCH = Layout("<IxxxxQ", Batch)
NODE = Layout("<QQQ", Node)
