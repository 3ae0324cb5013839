"""SEV commands of a VM: what KVM_MEMORY_ENCRYPT_OP carries. The platform's are in ``psp_sev``.

Source: Linux v6.12, arch/x86/include/uapi/asm/kvm.h; meanings and guest states:
Documentation/virt/kvm/x86/amd-memory-encryption.rst. Names ending in ``uaddr`` are addresses in
the caller's memory, names ending in ``len`` are bytes.
"""

from __future__ import annotations

from kvmenc.uapi.cstruct import (
    Struct,
    u8,
    u8x3,
    u8x6,
    u8x16,
    u8x32,
    u16,
    u32,
    u32x8,
    u64,
    u64x4,
)

# kvm_sev_cmd.id --------------------------------------------------------------------------------

KVM_SEV_INIT = 0
KVM_SEV_ES_INIT = 1
KVM_SEV_LAUNCH_START = 2
KVM_SEV_LAUNCH_UPDATE_DATA = 3
KVM_SEV_LAUNCH_UPDATE_VMSA = 4
KVM_SEV_LAUNCH_SECRET = 5
KVM_SEV_LAUNCH_MEASURE = 6
KVM_SEV_LAUNCH_FINISH = 7
KVM_SEV_SEND_START = 8
KVM_SEV_SEND_UPDATE_DATA = 9
KVM_SEV_SEND_UPDATE_VMSA = 10  # mainline has the number and no handler: EINVAL
KVM_SEV_SEND_FINISH = 11
KVM_SEV_RECEIVE_START = 12
KVM_SEV_RECEIVE_UPDATE_DATA = 13
KVM_SEV_RECEIVE_UPDATE_VMSA = 14  # likewise
KVM_SEV_RECEIVE_FINISH = 15
KVM_SEV_GUEST_STATUS = 16
KVM_SEV_DBG_DECRYPT = 17
KVM_SEV_DBG_ENCRYPT = 18
KVM_SEV_CERT_EXPORT = 19
KVM_SEV_GET_ATTESTATION_REPORT = 20
KVM_SEV_SEND_CANCEL = 21
KVM_SEV_INIT2 = 22
KVM_SEV_SNP_LAUNCH_START = 100
KVM_SEV_SNP_LAUNCH_UPDATE = 101
KVM_SEV_SNP_LAUNCH_FINISH = 102
KVM_SEV_SNP_ENABLE_REQ_CERTS = 103  # seen in v7.2

# kvm_sev_guest_status.state --------------------------------------------------------------------
# As the kernel's documentation has them. The firmware's own numbers, which come back, are 4 for
# sending, 5 for receiving, and 6 for sent (AMD's publication 55766; FreeBSD, sys/dev/psp; QEMU,
# qapi/misc-i386.json, SevState).

SEV_STATE_INVALID = 0
SEV_STATE_LAUNCHING = 1
SEV_STATE_SECRET = 2
SEV_STATE_RUNNING = 3
SEV_STATE_RECEIVING = 4
SEV_STATE_SENDING = 5


class kvm_sev_cmd(Struct):
    """The argument of KVM_MEMORY_ENCRYPT_OP.

    ``data`` is the address of the command's own struct; ``error`` comes back with the firmware's
    code (SEV_RET_ in ``psp_sev``); ``sev_fd`` is an open /dev/sev.
    """

    id: u32
    pad0: u32
    data: u64
    error: u32
    sev_fd: u32


class kvm_sev_init(Struct):
    """KVM_SEV_INIT2."""

    vmsa_features: u64
    flags: u32
    ghcb_version: u16
    pad1: u16
    pad2: u32x8


class kvm_sev_guest_status(Struct):
    """KVM_SEV_GUEST_STATUS. The documentation has a ``u8 state``; the header, a u32."""

    handle: u32
    policy: u32
    state: u32


class kvm_sev_launch_start(Struct):
    """KVM_SEV_LAUNCH_START; ``dh_uaddr`` 0: no owner's session."""

    handle: u32
    policy: u32
    dh_uaddr: u64
    dh_len: u32
    pad0: u32
    session_uaddr: u64
    session_len: u32
    pad1: u32


class kvm_sev_launch_update_data(Struct):
    """KVM_SEV_LAUNCH_UPDATE_DATA: encrypts the caller's memory where it is."""

    uaddr: u64
    len: u32
    pad0: u32


class kvm_sev_launch_measure(Struct):
    """KVM_SEV_LAUNCH_MEASURE; ``len`` 0 asks for the length."""

    uaddr: u64
    len: u32
    pad0: u32


class kvm_sev_dbg(Struct):
    """KVM_SEV_DBG_DECRYPT and _ENCRYPT, of guests whose policy allows it."""

    src_uaddr: u64
    dst_uaddr: u64
    len: u32
    pad0: u32


class kvm_sev_launch_secret(Struct):
    """KVM_SEV_LAUNCH_SECRET: the owner's packet, decrypted into the guest's memory."""

    hdr_uaddr: u64
    hdr_len: u32
    pad0: u32
    guest_uaddr: u64
    guest_len: u32
    pad1: u32
    trans_uaddr: u64
    trans_len: u32
    pad2: u32


class kvm_sev_attestation_report(Struct):
    """KVM_SEV_GET_ATTESTATION_REPORT; ``len`` 0 asks for the length."""

    mnonce: u8x16
    uaddr: u64
    len: u32
    pad0: u32


# SNP -------------------------------------------------------------------------------------------


class kvm_sev_snp_launch_start(Struct):
    """KVM_SEV_SNP_LAUNCH_START."""

    policy: u64
    gosvw: u8x16
    flags: u16
    pad0: u8x6
    pad1: u64x4


class kvm_sev_snp_launch_update(Struct):
    """KVM_SEV_SNP_LAUNCH_UPDATE; what remains comes back in it."""

    gfn_start: u64
    uaddr: u64
    len: u64
    type: u8
    pad0: u8
    flags: u16
    pad1: u32
    pad2: u64x4


KVM_SEV_SNP_ID_BLOCK_SIZE = 96
KVM_SEV_SNP_ID_AUTH_SIZE = 4096


class kvm_sev_snp_launch_finish(Struct):
    """KVM_SEV_SNP_LAUNCH_FINISH."""

    id_block_uaddr: u64
    id_auth_uaddr: u64
    id_block_en: u8
    auth_key_en: u8
    vcek_disabled: u8
    host_data: u8x32
    pad0: u8x3
    flags: u16
    pad1: u64x4


# Outgoing --------------------------------------------------------------------------------------


class kvm_sev_send_start(Struct):
    """KVM_SEV_SEND_START; ``session_len`` 0 asks for the length.

    The postings of 2019 say plat_cert_ and amd_cert_ where this says plat_certs_ and amd_certs_;
    the layout is the same.
    """

    policy: u32
    pad0: u32
    pdh_cert_uaddr: u64
    pdh_cert_len: u32
    pad1: u32
    plat_certs_uaddr: u64
    plat_certs_len: u32
    pad2: u32
    amd_certs_uaddr: u64
    amd_certs_len: u32
    pad3: u32
    session_uaddr: u64
    session_len: u32
    pad4: u32


class kvm_sev_send_update_data(Struct):
    """KVM_SEV_SEND_UPDATE_DATA: one guest page, or a part of one, encrypted for transport."""

    hdr_uaddr: u64
    hdr_len: u32
    pad0: u32
    guest_uaddr: u64
    guest_len: u32
    pad1: u32
    trans_uaddr: u64
    trans_len: u32
    pad2: u32


# Incoming --------------------------------------------------------------------------------------


class kvm_sev_receive_start(Struct):
    """KVM_SEV_RECEIVE_START: takes the place of LAUNCH_START on the destination."""

    handle: u32
    policy: u32
    pdh_uaddr: u64
    pdh_len: u32
    pad0: u32
    session_uaddr: u64
    session_len: u32
    pad1: u32


class kvm_sev_receive_update_data(Struct):
    """KVM_SEV_RECEIVE_UPDATE_DATA."""

    hdr_uaddr: u64
    hdr_len: u32
    pad0: u32
    guest_uaddr: u64
    guest_len: u32
    pad1: u32
    trans_uaddr: u64
    trans_len: u32
    pad2: u32


# Hygon CSV -------------------------------------------------------------------------------------
# Many pages in one command. Not in mainline: openEuler's QEMU, branch qemu-8.2.0, 84b004d84f,
# linux-headers/linux/kvm.h, and its kernel, arch/x86/kvm/svm/csv.c.

KVM_CSV_COMMAND_BATCH = 0x18


class kvm_csv_command_batch(Struct):
    """KVM_CSV_COMMAND_BATCH: the same ``command_id`` for each node of a linked list."""

    command_id: u32
    csv_batch_list_uaddr: u64


class kvm_csv_batch_list_node(Struct):
    """One page: ``cmd_data_addr`` is the address of its SEND or RECEIVE_UPDATE_DATA struct."""

    cmd_data_addr: u64
    addr: u64
    next_cmd_addr: u64  # 0 ends the list
