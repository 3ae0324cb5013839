"""Every test here needs a real QEMU."""

from __future__ import annotations

import shutil

import pytest

from tests.qemu.setup import PROGRAM
from tests.support import need, need_kvm


@pytest.fixture(autouse=True)
def _qemu_is_here() -> None:
    need(shutil.which(PROGRAM) is not None, f"{PROGRAM} is not installed", "KVMENC_REQUIRE_KVM")
    need_kvm()
