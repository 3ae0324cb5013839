"""The shaped cable carries what it is said to, and nothing of it stays."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.qemu.cable import Cable
from tests.qemu.transport import By

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not (shutil.which("ip") and shutil.which("tc")),
    reason="network namespaces need root, and iproute2",
)


def namespaces() -> set[str]:
    return set(subprocess.check_output(["ip", "netns", "list"], text=True).split())


def test_a_cable_is_gone_afterwards() -> None:
    before = namespaces()
    with Cable(10e6) as cable:
        assert namespaces() >= {cable.near, cable.far}
    assert namespaces() == before


def test_a_cable_that_cannot_be_made_leaves_nothing() -> None:
    before = namespaces()
    with pytest.raises(AssertionError, match="tbf"), Cable(0):
        pass
    assert namespaces() == before


def test_a_connection_gets_what_kvmenc_link_says(tmp_path: Path) -> None:
    """And takes some MB at once, which no more than passes."""
    with By("tcp", 20).made(tmp_path) as way:
        assert way.link_bytes_per_s == pytest.approx(20e6 * 1448 / 1514, rel=1e-3)
        assert way.send_buffer_bytes is not None
        assert 1e5 < way.send_buffer_bytes < 1e7
