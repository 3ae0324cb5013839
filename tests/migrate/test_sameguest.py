"""A capture of another guest is refused, with what is different."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvmenc.capture import BlockFacts
from kvmenc.errors import InputError
from kvmenc.migrate import check_same_guest
from kvmenc.qemu.ramblock import parse_ramblock
from kvmenc.qemu.text import QemuText
from tests.plan.guests import capture_of
from tests.qemu_text.servers import ToldQemu

TEXT = (Path(__file__).parent.parent / "data" / "qemu" / "pc-ramblock.txt").read_text()
BLOCKS = [BlockFacts(it.name, it.npages, 0, None, 0) for it in parse_ramblock(QemuText("pc", TEXT))]


def check(blocks: list[BlockFacts]) -> None:
    qemu = ToldQemu({"human-monitor-command": TEXT})
    check_same_guest(qemu, capture_of(blocks, [(1, 0, 1)]), "a.capture")


def test_a_capture_of_this_guest_may_hold_fewer_blocks() -> None:
    check(BLOCKS)
    check(BLOCKS[:1])


@pytest.mark.parametrize(
    ("name", "npages", "told"),
    [
        ("pc.ram", 1 << 22, "a RAMBlock pc.ram of 16 GiB, told has one of "),
        ("ram", 256, "a RAMBlock ram of 1 MiB, told has none"),
    ],
)
def test_what_is_different_is_named(name: str, npages: int, told: str) -> None:
    with pytest.raises(InputError, match=rf"^a.capture is of another guest: it has {told}"):
        check([*BLOCKS[1:], BlockFacts(name, npages, 0, None, 0)])
