"""Struct turns annotations into a C layout."""

from __future__ import annotations

import ctypes

import pytest

from kvmenc.uapi import kvm_dirty_log, kvm_run, sev_issue_cmd
from kvmenc.uapi.cstruct import Struct, u8, u32, u64x4


class example(Struct):  # noqa: N801
    first: u8
    second: u32
    many: u64x4


def test_fields_are_laid_out_as_c_lays_them_out() -> None:
    offsets = [getattr(example, name).offset for name in ("first", "second", "many")]
    assert (offsets, ctypes.sizeof(example)) == ([0, 4, 8], 40)


def test_values_land_in_the_bytes_of_the_struct() -> None:
    log = kvm_dirty_log(slot=0x00020001, dirty_bitmap=0x1122334455667788)
    assert bytes(log).hex() == "0100020000000000" + "8877665544332211"


def test_a_packed_struct_has_no_padding() -> None:
    assert ctypes.sizeof(sev_issue_cmd) == 16
    assert bytes(sev_issue_cmd(cmd=1, data=2, error=3))[4:12] == (2).to_bytes(8, "little")


def test_members_of_an_anonymous_union_share_their_bytes() -> None:
    run = kvm_run()
    run.io.port = 0x1234
    assert bytes(run)[32:36] == b"\0\0\x34\x12"
    assert run.exit.hw.hardware_exit_reason == 0x12340000


@pytest.mark.parametrize("struct", [kvm_dirty_log(), kvm_run(), kvm_run().io])
def test_a_misspelt_field_is_an_error_when_written(struct: ctypes.Structure) -> None:
    with pytest.raises(AttributeError, match="bitmpa"):
        struct.bitmpa = 1


def test_a_misspelt_field_is_an_error_when_constructed() -> None:
    with pytest.raises(AttributeError, match="bitmpa"):
        kvm_dirty_log(bitmpa=1)
