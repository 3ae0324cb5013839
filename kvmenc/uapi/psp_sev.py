"""/dev/sev: the platform's commands, and the firmware's error codes.

Source: Linux v6.12, include/uapi/linux/psp-sev.h; the platform states, include/linux/psp-sev.h.
"""

from __future__ import annotations

from kvmenc.uapi.cstruct import Struct, u8, u8x64, u32, u64
from kvmenc.uapi.ioc import _IOWR

SEV_IOC_TYPE = ord("S")


class sev_issue_cmd(Struct):
    """The argument of SEV_ISSUE_CMD.

    A zeroed one is SEV_FACTORY_RESET. /dev/sev opened read-only refuses it, and all that writes.
    """

    _pack_ = 1
    _layout_ = "ms"

    cmd: u32
    data: u64
    error: u32


SEV_ISSUE_CMD = _IOWR("SEV_ISSUE_CMD", SEV_IOC_TYPE, 0x0, sev_issue_cmd)

# sev_issue_cmd.cmd
SEV_FACTORY_RESET = 0
SEV_PLATFORM_STATUS = 1
SEV_PEK_GEN = 2
SEV_PEK_CSR = 3
SEV_PDH_GEN = 4
SEV_PDH_CERT_EXPORT = 5
SEV_PEK_CERT_IMPORT = 6
SEV_GET_ID = 7
SEV_GET_ID2 = 8
SNP_PLATFORM_STATUS = 9


class sev_user_data_status(Struct):
    """SEV_PLATFORM_STATUS."""

    _pack_ = 1
    _layout_ = "ms"

    api_major: u8
    api_minor: u8
    state: u8
    flags: u32
    build: u8
    guest_count: u32


class sev_user_data_pek_csr(Struct):
    """SEV_PEK_CSR; ``length`` comes back."""

    _pack_ = 1
    _layout_ = "ms"

    address: u64
    length: u32


class sev_user_data_pek_cert_import(Struct):
    """SEV_PEK_CERT_IMPORT."""

    _pack_ = 1
    _layout_ = "ms"

    pek_cert_address: u64
    pek_cert_len: u32
    oca_cert_address: u64
    oca_cert_len: u32


class sev_user_data_pdh_cert_export(Struct):
    """SEV_PDH_CERT_EXPORT; both lengths come back."""

    _pack_ = 1
    _layout_ = "ms"

    pdh_cert_address: u64
    pdh_cert_len: u32
    cert_chain_address: u64
    cert_chain_len: u32


class sev_user_data_get_id(Struct):
    """SEV_GET_ID."""

    _pack_ = 1
    _layout_ = "ms"

    socket1: u8x64
    socket2: u8x64


class sev_user_data_get_id2(Struct):
    """SEV_GET_ID2; ``length`` comes back."""

    _pack_ = 1
    _layout_ = "ms"

    address: u64
    length: u32


SEV_STATUS_FLAGS_CONFIG_ES = 0x0100

# sev_user_data_status.state
SEV_STATE_UNINIT = 0
SEV_STATE_INIT = 1
SEV_STATE_WORKING = 2

# sev_issue_cmd.error and kvm_sev_cmd.error; both are unsigned, so that -1 reads 0xffffffff.
SEV_RET_NO_FW_CALL = -1  # the firmware was not called
SEV_RET_SUCCESS = 0x00
SEV_RET_INVALID_PLATFORM_STATE = 0x01
SEV_RET_INVALID_GUEST_STATE = 0x02
SEV_RET_INVALID_CONFIG = 0x03
SEV_RET_INVALID_LEN = 0x04  # the expected answer to a query for a length
SEV_RET_ALREADY_OWNED = 0x05
SEV_RET_INVALID_CERTIFICATE = 0x06
SEV_RET_POLICY_FAILURE = 0x07
SEV_RET_INACTIVE = 0x08
SEV_RET_INVALID_ADDRESS = 0x09
SEV_RET_BAD_SIGNATURE = 0x0A
SEV_RET_BAD_MEASUREMENT = 0x0B
SEV_RET_ASID_OWNED = 0x0C
SEV_RET_INVALID_ASID = 0x0D
SEV_RET_WBINVD_REQUIRED = 0x0E
SEV_RET_DFFLUSH_REQUIRED = 0x0F
SEV_RET_INVALID_GUEST = 0x10
SEV_RET_INVALID_COMMAND = 0x11
SEV_RET_ACTIVE = 0x12
SEV_RET_HWSEV_RET_PLATFORM = 0x13
SEV_RET_HWSEV_RET_UNSAFE = 0x14
SEV_RET_UNSUPPORTED = 0x15
SEV_RET_INVALID_PARAM = 0x16
SEV_RET_RESOURCE_LIMIT = 0x17
SEV_RET_SECURE_DATA_INVALID = 0x18
SEV_RET_INVALID_PAGE_SIZE = 0x19
SEV_RET_INVALID_PAGE_STATE = 0x1A
SEV_RET_INVALID_MDATA_ENTRY = 0x1B
SEV_RET_INVALID_PAGE_OWNER = 0x1C
SEV_RET_AEAD_OFLOW = 0x1D
SEV_RET_EXIT_RING_BUFFER = 0x1F
SEV_RET_RMP_INIT_REQUIRED = 0x20
SEV_RET_BAD_SVN = 0x21
SEV_RET_BAD_VERSION = 0x22
SEV_RET_SHUTDOWN_REQUIRED = 0x23
SEV_RET_UPDATE_FAILED = 0x24
SEV_RET_RESTORE_REQUIRED = 0x25
SEV_RET_RMP_INITIALIZATION_FAILED = 0x26
SEV_RET_INVALID_KEY = 0x27
