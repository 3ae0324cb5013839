"""Whether a capture is of the guest that is to be migrated: a prediction is worth nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.errors import InputError
from kvmenc.qemu.ramblock import parse_ramblock
from kvmenc.qemu.text import PAGE_SIZE
from kvmenc.units import format_size

if TYPE_CHECKING:
    from kvmenc.capture import Capture
    from kvmenc.qemu.monitor import Monitor

__all__ = ["check_same_guest"]


def check_same_guest(monitor: Monitor, capture: Capture, file: str) -> None:
    """See that QEMU has the capture's RAMBlocks, each of its size.

    Args:
        monitor: of the QEMU.
        capture: made before.
        file: it, as the error calls it.

    Raises:
        InputError: one is missing there, or of another size.
    """
    there = {it.name: it.npages for it in parse_ramblock(monitor.monitor("info ramblock"))}
    for block in capture.blocks:
        npages = there.get(block.name)
        if npages == block.npages:
            continue
        size = format_size(block.npages * capture.page_size)
        other = "none" if npages is None else f"one of {format_size(npages * PAGE_SIZE)}"
        raise InputError(
            f"{file} is of another guest: it has a RAMBlock {block.name} of {size}, "
            f"{monitor.name} has {other}"
        )
