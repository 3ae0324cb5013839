"""What a capture file holds, as a result: its facts, and what its bitmaps add to them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Self

import msgspec

from kvmenc.capture import Capture
from kvmenc.memory.words import count_split
from kvmenc.report.memorymap import BlockMap

if TYPE_CHECKING:
    from kvmenc.capture import BitmapKind, CaptureFile
    from kvmenc.memory.words import Words

__all__ = ["BlockRow", "ShowReport", "block_row"]


class BlockRow(msgspec.Struct, frozen=True, kw_only=True):
    """A RAMBlock in pages.

    Attributes:
        name: what a migration stream calls it.
        npages: its size.
        private_pages: private at the last look.
        shared_pages: shared at the last look.
        zero_pages: shared ones that hold only zeros; null where nobody looked.
        zero_low_pages: least they are with 95 % confidence; null if counted.
        zero_high_pages: most they are.
        dirtied_private_pages: written at least once and private at the last look; null where it is
            known for all RAMBlocks together only.
        dirtied_shared_pages: likewise shared.
        device_pages: found written by devices only; null where nobody looked.
        unlogged_pages: in no memslot with a dirty log: whether they were written is not known.
    """

    name: str
    npages: int
    private_pages: int
    shared_pages: int
    zero_pages: int | None
    zero_low_pages: int | None
    zero_high_pages: int | None
    dirtied_private_pages: int | None
    dirtied_shared_pages: int | None
    device_pages: int | None
    unlogged_pages: int


class ShowReport(msgspec.Struct, frozen=True, kw_only=True):
    """A capture, and what its bitmaps say.

    Attributes:
        schema: ``kvmenc.show/1``.
        capture: the facts, as they are in the file.
        blocks: its RAMBlocks.
        maps: of the RAMBlocks that have bitmaps.
    """

    schema: Literal["kvmenc.show/1"] = "kvmenc.show/1"
    capture: Capture
    blocks: list[BlockRow]
    maps: list[BlockMap]

    @classmethod
    def of(cls, file: CaptureFile) -> Self:
        """Read the bitmaps, of one RAMBlock at a time.

        Raises:
            CaptureError: a bitmap is damaged.
        """
        rows, maps = [], []
        for index, block in enumerate(file.capture.blocks):
            bitmaps = {kind: file.bitmap(kind, block.name) for kind in file.kinds(block.name)}
            rows.append(block_row(file.capture, index, bitmaps))
            if bitmaps:
                maps.append(BlockMap.of(block.name, block.npages, bitmaps))
        return cls(capture=file.capture, blocks=rows, maps=maps)


def block_row(capture: Capture, index: int, bitmaps: dict[BitmapKind, Words]) -> BlockRow:
    """The RAMBlock at this index, with what its bitmaps say."""
    block = capture.blocks[index]
    dirtied_private, dirtied_shared = _dirtied(capture, index, bitmaps)
    return BlockRow(
        name=block.name,
        npages=block.npages,
        private_pages=block.private_pages,
        shared_pages=block.npages - block.private_pages,
        zero_pages=block.zero_pages,
        zero_low_pages=block.zero_low_pages,
        zero_high_pages=block.zero_high_pages,
        dirtied_private_pages=dirtied_private,
        dirtied_shared_pages=dirtied_shared,
        device_pages=capture.device.points[-1].pages[index] if capture.device else None,
        unlogged_pages=block.unlogged_pages,
    )


def _dirtied(
    capture: Capture, index: int, bitmaps: dict[BitmapKind, Words]
) -> tuple[int | None, int | None]:
    """Private and shared pages written: in the whole capture, or else in its longest window."""
    if "dirty" in bitmaps and "private" in bitmaps:
        npages = capture.blocks[index].npages
        return count_split(bitmaps["dirty"], bitmaps["private"], npages)
    if not capture.windows:
        return None, None
    last = max((window.points[-1] for window in capture.windows), key=lambda point: point.ms)
    return last.private_pages[index], last.shared_pages[index]
