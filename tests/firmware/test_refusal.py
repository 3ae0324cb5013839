from __future__ import annotations

import pytest

from kvmenc import uapi
from kvmenc.firmware import FirmwareRefused
from kvmenc.uapi import sev_cmd_name


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (0, "KVM_SEV_INIT"),
        (8, "KVM_SEV_SEND_START"),
        (24, "KVM_CSV_COMMAND_BATCH"),
        (103, "KVM_SEV_SNP_ENABLE_REQ_CERTS"),
        (77, "command 77"),
    ],
)
def test_a_command_has_its_kernel_name(number: int, name: str) -> None:
    assert sev_cmd_name(number) == name


def test_a_code_without_advice_is_named_and_one_without_a_name_is_a_number() -> None:
    assert str(FirmwareRefused(16, uapi.SEV_RET_WBINVD_REQUIRED)).endswith(
        "(KVM_SEV_GUEST_STATUS) failed: EIO: SEV_RET_WBINVD_REQUIRED"
    )
    assert "firmware error 0x7777" in str(FirmwareRefused(16, 0x7777))
