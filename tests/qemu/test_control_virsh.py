"""A real QEMU through a stand-in virsh, which alone holds its QMP socket."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from kvmenc.errors import HostError
from kvmenc.qemu.dirtyrate import DirtyRate
from kvmenc.qemu.facts import read_facts
from kvmenc.qemu.live import read_layout
from kvmenc.qemu.monitor import CommandError
from kvmenc.qemu.qmp import Qmp
from kvmenc.qemu.slotids import SlotTrace
from kvmenc.qemu.virsh import Virsh
from tests.cli.test_root import kvmenc
from tests.qemu.guest import Guest
from tests.qemu.logged import left_files
from tests.qemu.machine import Machine
from tests.qemu_text.virsh import forwarding, install_virsh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.qemu


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    with Machine(tmp_path / "vm", Guest(1)) as machine:
        program = forwarding("-guest", machine.second_socket)
        install_virsh(tmp_path / "bin", program, monkeypatch)
        yield machine


def test_all_that_a_capture_asks_goes_through_virsh_too(machine: Machine) -> None:
    with Virsh("-guest", "qemu:///session") as virsh:
        facts = read_facts(virsh)
        assert facts.pid == machine.pid
        layout, rate = read_layout(virsh).layout, DirtyRate(virsh)
        with SlotTrace(virsh, facts) as trace:
            rate.start(1)
            assert len(trace.numbered(layout).slots) == len(layout.slots)
        rate.wait()
        with pytest.raises(CommandError, match="domain -guest: nonsense: QEMU refuses"):
            virsh.execute("nonsense")
    assert left_files(machine.pid) == []


def test_the_same_facts_and_layout_as_by_the_socket(machine: Machine) -> None:
    virsh = Virsh("-guest")
    facts, layout = read_facts(virsh), read_layout(virsh)
    with Qmp(machine.second_socket) as qmp:
        assert read_facts(qmp) == facts
        assert read_layout(qmp).layout.slots == layout.layout.slots


def test_no_such_domain(machine: Machine) -> None:
    with pytest.raises(HostError, match="virsh: failed to get domain 'other'"):
        read_facts(Virsh("other"))


def test_the_layout_command_takes_a_domain(machine: Machine) -> None:
    asked = kvmenc("layout", "--domain", "-guest", "--json")
    assert (asked.returncode, asked.stderr) == (0, "")
    by_socket = kvmenc("layout", "--qmp", str(machine.second_socket), "--json")
    assert json.loads(asked.stdout)["pieces"] == json.loads(by_socket.stdout)["pieces"]
    assert json.loads(asked.stdout)["source"] == "-guest"
    missing = kvmenc("layout", "--domain", "other")
    assert missing.returncode == 3
    assert missing.stderr.count("\n") == 1
    assert "failed to get domain 'other'" in missing.stderr
