"""The README's way into a running QEMU, as it stands there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.qemu.guest import Guest, Writer
from tests.qemu.machine import Machine
from tests.test_readme import section
from tests.transcripts import commands_of, differences, run

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.qemu


def test_a_guest_is_watched_and_planned(tmp_path: Path) -> None:
    with Machine(tmp_path / "vm", Guest(2116, writer=Writer(2016, 504, 20))) as qemu:
        for command in commands_of(section("A real host"))[1:]:
            printed = run(command, tmp_path, {"/run/guest.qmp": str(qemu.second_socket)})
            assert not differences(command, printed)
