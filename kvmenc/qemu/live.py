"""A running QEMU's layout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.errors import HostError, InputError
from kvmenc.qemu.join import from_mtree
from kvmenc.qemu.mtree import parse_mtree
from kvmenc.qemu.ramblock import parse_ramblock

if TYPE_CHECKING:
    from kvmenc.qemu.join import QemuLayout
    from kvmenc.qemu.monitor import Monitor

__all__ = ["read_layout"]

# A guest that boots maps its memory anew all the time, each time within milliseconds.
_TRIES = 5


def read_layout(monitor: Monitor) -> QemuLayout:
    """A QEMU's layout, of one moment: asked again while the guest changes it. Changes nothing.

    Raises:
        HostError: QEMU does not answer, or the layout does not hold still.
        InputError: it answers in a format that is not known.
    """
    for _ in range(_TRIES):
        mtree = monitor.monitor("info mtree -f")
        blocks = monitor.monitor("info ramblock")
        try:
            layout = from_mtree(parse_mtree(mtree), parse_ramblock(blocks), monitor.host_addr)
        except InputError:
            if monitor.monitor("info mtree -f") == mtree:
                raise
            continue
        if monitor.monitor("info mtree -f") == mtree and monitor.monitor("info ramblock") == blocks:
            return layout
    raise HostError("the guest's memory layout does not hold still: is it booting? Try again")
