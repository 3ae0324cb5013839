"""``info ramblock``: the RAMBlocks, with their host addresses from QEMU 8.0 on.

Format: QEMU v7.2 and v10.0, softmmu/physmem.c (later system/physmem.c), ram_block_format::

      Block Name    PSize              Offset               Used              Total
          pc.ram    4 KiB  0x0000000000000000 0x0000000010000000 0x0000000010000000

and, with QEMU 8.0, two columns more: ``HVA`` and ``RO``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kvmenc.errors import InputError
from kvmenc.qemu.text import HOST_ADDR_LIMIT, PAGE_SIZE, RAM_LIMIT

if TYPE_CHECKING:
    from kvmenc.qemu.text import QemuText

__all__ = ["BlockLine", "parse_ramblock"]

MAX_BLOCKS = 1 << 14
# QEMU v10.0, include/exec/ramblock.h: char idstr[256].
MAX_NAME = 255

_HEADER = re.compile(r" *Block Name +PSize +Offset +Used +Total(?: +HVA +RO)?")
_NUMBER = r"0x([0-9a-f]{16})"
_LINE = re.compile(
    r" *(\S.*?)? +\d+(?:\.\d+)? [KMGTPE]?i?B +"
    rf"{_NUMBER} {_NUMBER} {_NUMBER}(?: {_NUMBER} +(ro|rw))?"
)


@dataclass(frozen=True, slots=True)
class BlockLine:
    """One RAMBlock as QEMU prints it.

    Attributes:
        name: what a migration stream calls it.
        ram_addr: its first byte in QEMU's own numbering of all RAM.
        used_bytes: what is migrated of it.
        host_addr: where it lies in QEMU; None if QEMU does not print that.
        readonly: it is ROM to KVM too; None if QEMU does not print that.
    """

    name: str
    ram_addr: int
    used_bytes: int
    host_addr: int | None = None
    readonly: bool | None = None

    @property
    def npages(self) -> int:
        """Pages in use."""
        return self.used_bytes // PAGE_SIZE


def parse_ramblock(text: QemuText) -> list[BlockLine]:
    """Every RAMBlock that has a name and pages in use, in the order printed.

    A device's memory that QEMU merely maps has no name; it is never migrated.

    Raises:
        InputError: a line is not of this format or makes no sense, or a name comes twice; names
            the file and the line.
    """
    lines = text.lines()
    number, header = next(lines, (1, ""))
    if not _HEADER.fullmatch(header):
        raise text.error(number, "not the output of `info ramblock`", header)
    blocks: dict[str, BlockLine] = {}
    for number, line in lines:
        block = _block(text, number, line)
        if block.name in blocks:
            raise text.error(number, "a second RAMBlock of this name", line)
        if len(blocks) == MAX_BLOCKS:
            raise text.error(number, f"more than {MAX_BLOCKS} RAMBlocks")
        if block.name and block.npages:
            blocks[block.name] = block
    if not blocks:
        raise InputError(f"{text.source}: no RAMBlock in it; cut off?")
    return list(blocks.values())


def _block(text: QemuText, number: int, line: str) -> BlockLine:
    match = _LINE.fullmatch(line)
    if not match:
        raise text.error(number, "no line of `info ramblock`; cut off?", line)
    name, access = match[1] or "", match[6]
    ram_addr, used, total = (int(match[i], 16) for i in (2, 3, 4))
    host_addr = int(match[5], 16) if match[5] else None
    if len(name) > MAX_NAME or not name.isprintable():
        raise text.error(number, "no name that QEMU gives a RAMBlock", line)
    if used > total or used % PAGE_SIZE or max(ram_addr, total, host_addr or 0) % PAGE_SIZE:
        raise text.error(number, "sizes and addresses must be whole pages, used <= total", line)
    if ram_addr + total > RAM_LIMIT or (host_addr or 0) + total > HOST_ADDR_LIMIT:
        raise text.error(number, "larger than any machine's memory", line)
    return BlockLine(name, ram_addr, used, host_addr, access == "ro" if access else None)
