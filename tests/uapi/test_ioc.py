"""ioctl numbers are made by formula."""

from __future__ import annotations

import ctypes

import pytest

from kvmenc.uapi.ioc import _IO, _IOR, _IOW, _IOWR, Ioctl
from kvmenc.uapi.page_enc import REVISIONS
from tests.uapi.inventory import ioctls

PAGE_ENC = [i for r in REVISIONS.values() for i in (r.get, r.set, r.reset_ioctl) if i is not None]


@pytest.mark.parametrize(
    ("ioctl", "number"),
    [
        (_IO("NONE", 0xAE, 0x80), 0x0000AE80),
        (_IOW("WRITE", 0xAE, 0x48, ctypes.c_uint64), 0x4008AE48),
        (_IOR("READ", 0x12, 0x34, ctypes.c_uint64), 0x80081234),
        (_IOWR("BOTH", 0xAE, 0xBA, ctypes.c_ulong), 0xC008AEBA),
    ],
)
def test_each_direction_is_encoded_as_the_kernel_does(ioctl: Ioctl, number: int) -> None:
    assert ioctl == number


def test_every_ioctl_carries_the_name_it_is_declared_by() -> None:
    assert {name: ioctl.name for name, ioctl in ioctls().items()} == {n: n for n in ioctls()}


@pytest.mark.parametrize("ioctl", [*ioctls().values(), *PAGE_ENC], ids=repr)
def test_the_size_in_the_number_is_that_of_the_argument(ioctl: Ioctl) -> None:
    assert ioctl.size == (ctypes.sizeof(ioctl.argtype) if ioctl.argtype else 0)


def test_an_ioctl_prints_its_name_and_its_number() -> None:
    assert repr(_IO("KVM_RUN", 0xAE, 0x80)) == "KVM_RUN=0x0000ae80"
    assert _IO("KVM_RUN", 0xAE, 0x80).nr == 0x80
