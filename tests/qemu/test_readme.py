"""The README's way into a running QEMU, as it stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.docs.test_readme import section
from tests.docs.transcripts import commands_of, run, wrong
from tests.qemu.guest import Guest, Writer
from tests.qemu.machine import Machine

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.qemu


def test_a_guest_is_watched_and_planned(tmp_path: Path) -> None:
    _, capture, *others = commands_of(section("A real host"))
    with Machine(tmp_path / "vm", Guest(2116, writer=Writer(2016, 504, 20))) as qemu:
        done = run(capture.line, tmp_path, {"/run/guest.qmp": str(qemu.second_socket)})
        assert not wrong(capture, done.stdout)
    for command in others:
        assert not wrong(command, run(command.line, tmp_path).stdout)
