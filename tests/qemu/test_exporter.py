"""``examples/exporter.py`` on a real QEMU."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import pytest

from tests.examples.test_exporter import export
from tests.qemu.guest import Guest, Writer
from tests.qemu.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.qemu,
    pytest.mark.skipif(
        importlib.util.find_spec("prometheus_client") is None, reason="no prometheus-client is here"
    ),
]


def test_a_running_guest_is_exported(tmp_path: Path) -> None:
    writer = Writer(2016, 504, 20)
    with Machine(tmp_path / "vm", Guest(100, writer=writer)) as machine:
        run = export(
            "--qmp", machine.second_socket, "--seconds", "1",
            "--guest", "g", "-o", tmp_path / "g.prom",
        )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    lines = (tmp_path / "g.prom").read_text().splitlines()
    written = 'kvmenc_guest_written_pages{class="shared",guest="g",within="0.3"}'
    assert f"{written} {float(writer.pages)}" in lines
