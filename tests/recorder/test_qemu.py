"""Debian's QEMU, recorded while it boots a guest and migrates: it works, and its file is sound."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from kvmenc import uapi
from kvmenc.backend.recordfile import load_recording
from kvmenc.backend.recordmodel import Ioctled
from kvmenc.plan import Parameters
from tests.qemu.conftest import _qemu_is_here  # noqa: F401 - used by its name
from tests.qemu.guest import REGION_PAGES, Guest, Writer
from tests.qemu.machine import Machine
from tests.qemu.setup import PROGRAM, Setup

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.qemu, pytest.mark.usefixtures("_qemu_is_here")]


@dataclass(frozen=True, slots=True)
class RecordedSetup(Setup):
    """QEMU as it is always started, recorded in a file."""

    recording: str = ""

    @property
    def command(self) -> list[str]:
        recorder = [sys.executable, "-m", "fakekvm.cli", "record", "-o", self.recording, "--"]
        return [*recorder, PROGRAM]


@pytest.mark.parametrize("sandbox", [False, True])
def test_a_qemu_that_migrates(sandbox: bool, tmp_path: Path) -> None:
    path = tmp_path / "qemu.recording"
    setup = RecordedSetup(recording=str(path), sandbox=sandbox)
    guest = Guest(REGION_PAGES, writer=Writer(4032, 40, 10))
    with Machine(tmp_path / "vm", guest, setup=setup) as qemu:
        # A sandboxed QEMU starts no process, so there is none to migrate into: a log is enough.
        if sandbox:
            qemu.log_dirty(1)
            assert qemu.dirty_rate_mib_per_s() > 0
        else:
            migrated = qemu.migrate(Parameters(max_bandwidth_bytes_per_s=64e6))
            assert migrated.status == "completed"
        qemu.command("quit")
        assert qemu._process.wait(30) == 0
    ioctls = [it for it in load_recording(path).calls if isinstance(it, Ioctled)]
    assert sum(it.request == uapi.KVM_RUN for it in ioctls) > 1
    logs = [it for it in ioctls if it.request == uapi.KVM_GET_DIRTY_LOG and not it.errno]
    assert all(it.known and it.fd >= 0 for it in logs)
    assert any(piece.data and any(piece.data) for it in logs for piece in it.after.values())
