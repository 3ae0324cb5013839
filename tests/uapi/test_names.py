"""Numbers are turned back into kernel names."""

from __future__ import annotations

import pytest

from kvmenc.uapi import exit_name, name_of, sev_ret_name
from tests.uapi.inventory import constants, ioctls


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        (0x4010AE42, "KVM_GET_DIRTY_LOG"),
        (0x0000AEC7, "KVM_RESET_DIRTY_RINGS/KVM_PAGE_ENC_BITMAP_RESET"),
        (0x0000AEC4, "KVM_PAGE_ENC_BITMAP_RESET"),
        (0x4018AEC2, "KVM_GET_PAGE_ENC_BITMAP"),
        (0x4018AEC6, "KVM_SET_PAGE_ENC_BITMAP/KVM_GET_PAGE_ENC_BITMAP"),
        (
            0x4018AEC8,
            "KVM_GET_PAGE_ENC_BITMAP/KVM_GET_PAGE_ENC_LIST/KVM_GET_SHARED_PAGES_LIST",
        ),
        (0xC0105300, "SEV_ISSUE_CMD"),
        (0x4008AE89, "KVM_SET_MSRS"),
        (0x00001234, "ioctl 0x00001234"),
    ],
)
def test_a_number_has_every_name_it_ever_had(request_: int, name: str) -> None:
    assert name_of(request_) == name


def test_every_ioctl_is_found_by_its_number() -> None:
    assert all(name in name_of(ioctl).split("/") for name, ioctl in ioctls().items())


@pytest.mark.parametrize(
    ("reason", "name"),
    [(0, "KVM_EXIT_UNKNOWN"), (3, "KVM_EXIT_HYPERCALL"), (39, "KVM_EXIT_MEMORY_FAULT")],
)
def test_an_exit_reason_has_its_kernel_name(reason: int, name: str) -> None:
    assert exit_name(reason) == name


def test_an_unknown_exit_reason_is_printed_as_a_number() -> None:
    assert exit_name(1000) == "exit 1000"


@pytest.mark.parametrize("name", [n for n in constants() if n.startswith("SEV_RET_")])
def test_a_firmware_error_has_its_kernel_name(name: str) -> None:
    assert sev_ret_name(constants()[name]) == name


def test_firmware_not_called_is_recognised_in_an_unsigned_field() -> None:
    assert sev_ret_name(0xFFFFFFFF) == "SEV_RET_NO_FW_CALL"


def test_an_unknown_firmware_error_is_printed_as_a_number() -> None:
    assert sev_ret_name(0x1234) == "SEV firmware error 0x1234"
