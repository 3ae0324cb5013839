"""Tests of a program that uses KVM, where there is none: copy this, and put your own VMM in.

    pip install ./kvmenc pytest && pytest test_vmm.py    # ./kvmenc: its sources, or its wheel

pytest finds fakekvm's fixtures by itself: ``fake_kvm``, ``sev_host`` and ``kvm``.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from fakekvm import Kernel
    from kvmenc.backend import Backend

# <linux/kvm.h>
KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_CHECK_EXTENSION = 0xAE03
KVM_CAP_MAX_VCPUS = 66


def max_vcpus(kernel: Kernel | Backend) -> int:
    """Stands for the program under test: it has ``open``, ``ioctl`` and ``close`` handed in."""
    kvm = kernel.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    try:
        if kernel.ioctl(kvm, KVM_GET_API_VERSION, 0) != 12:
            msg = "not a KVM that this program knows"
            raise RuntimeError(msg)
        return kernel.ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS)
    finally:
        kernel.close(kvm)


def test_on_the_machine_at_hand(kvm: Backend) -> None:
    """``kvm`` is the real /dev/kvm where it opens, so a laptop tests more than CI."""
    assert max_vcpus(kvm) > 0


def test_on_a_mainline_host(fake_kvm: Kernel) -> None:
    """Always fake: the same answers everywhere."""
    assert max_vcpus(fake_kvm) == 1024


@pytest.mark.fakekvm(host="no-rights")
def test_without_rights(fake_kvm: Kernel) -> None:
    """A machine that few developers have at hand."""
    with pytest.raises(PermissionError):
        max_vcpus(fake_kvm)


@pytest.mark.fakekvm(host="no-kvm")
def test_without_kvm(fake_kvm: Kernel) -> None:
    """No module loaded."""
    with pytest.raises(FileNotFoundError) as caught:
        max_vcpus(fake_kvm)
    assert caught.value.errno == errno.ENOENT


def test_a_vm_on_a_host_with_sev(sev_host: Kernel) -> None:
    """It has an encryption bitmap, too."""
    kvm = sev_host.open("/dev/kvm")
    vm = sev_host.ioctl(kvm, KVM_CREATE_VM, 0)
    assert vm >= 0
    sev_host.close(vm)
    sev_host.close(kvm)
