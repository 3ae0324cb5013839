"""``info mtree -f``: the guest's address spaces as flat ranges.

Format: QEMU v7.2 to v11.1, softmmu/memory.c (later system/memory.c), mtree_print_flatview::

    FlatView #0
     AS "memory", root: system
     Root memory region: system
      0000000000000000-000000000009ffff (prio 0, ram): pc.ram KVM
      00000000000c0000-00000000000cafff (prio 0, rom): pc.ram @00000000000c0000 KVM

Ports that nobody answers are ``i/o`` of the region ``io``; v11.1 says ``container`` of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kvmenc.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.qemu.text import QemuText

__all__ = ["FlatView", "Range", "find_view", "parse_mtree"]

# KVM's own limit on slots of one address space is lower (Linux v6.12, KVM_USER_MEM_SLOTS: 32764).
MAX_RANGES = 1 << 15

_VIEW = re.compile(r"FlatView #\d+")
_SPACE = re.compile(r' AS "(.*)", root: .*')
_NOTHING = re.compile(r" Root memory region: .*|  No rendered FlatView")
_RANGE = re.compile(
    r"  ([0-9a-f]{16})-([0-9a-f]{16}) \(prio -?\d+, (?:nv-)?(ram|ramd|rom|romd|i/o|container)\): "
    r"(.+?)(?: @([0-9a-f]{16}))?( KVM)?"
)


@dataclass(frozen=True, slots=True)
class Range:
    """One flat range.

    Attributes:
        start: guest physical address of its first byte.
        end: of the byte after its last.
        kind: ``ram``, ``rom``, ``romd`` (flash being read), ``ramd`` (a device's), ``i/o``.
        name: of the memory region; a RAMBlock's own name, or the end of it.
        offset: in the memory region, in bytes.
        in_kvm: QEMU says that KVM has a slot for it.
    """

    start: int
    end: int
    kind: str
    name: str
    offset: int
    in_kvm: bool


@dataclass(frozen=True, slots=True)
class FlatView:
    """The ranges that some address spaces share, ascending and apart.

    Attributes:
        address_spaces: names.
        ranges: of memory and I/O.
    """

    address_spaces: list[str] = field(default_factory=list)
    ranges: list[Range] = field(default_factory=list)


def parse_mtree(text: QemuText) -> list[FlatView]:
    """Every FlatView, in the order printed.

    Raises:
        InputError: a line is not of this format, ranges overlap, or there is no address space
            ``memory``; names the file and the line.
    """
    views: list[FlatView] = []
    for number, line in text.lines():
        if _VIEW.fullmatch(line):
            views.append(FlatView())
        elif not views:
            raise text.error(number, "not the output of `info mtree -f`", line)
        elif space := _SPACE.fullmatch(line):
            views[-1].address_spaces.append(space[1])
        elif match := _RANGE.fullmatch(line):
            _add(views[-1], match, text, number)
        elif not _NOTHING.fullmatch(line):
            raise text.error(number, "no line of `info mtree -f`; cut off?", line)
    if find_view(views, "memory") is None:
        raise InputError(f'{text.source}: no FlatView of the address space "memory"; cut off?')
    return views


def find_view(views: Sequence[FlatView], address_space: str) -> FlatView | None:
    """The FlatView of an address space, if there is one."""
    return next((view for view in views if address_space in view.address_spaces), None)


def _add(view: FlatView, match: re.Match[str], text: QemuText, number: int) -> None:
    start, last, kind, name, offset, kvm = match.groups()
    kind = kind.replace("container", "i/o")
    one = Range(
        int(start, 16), int(last, 16) + 1, kind, name, int(offset or "0", 16), kvm is not None
    )
    if one.end <= one.start:
        raise text.error(number, "a range ends before it starts", match[0])
    if view.ranges and one.start < view.ranges[-1].end:
        raise text.error(number, "a range overlaps the one before it", match[0])
    if len(view.ranges) == MAX_RANGES:
        raise text.error(number, f"more than {MAX_RANGES} ranges in a FlatView")
    view.ranges.append(one)
