"""Records of pages, many at a time: what each is, of which page, and where its bytes are."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kvmenc.memory.words import Pages

__all__ = ["KIND_NAMES", "ROAD_OF", "Batch", "Block", "Found", "Kind", "KindName", "Road"]


class Kind(IntEnum):
    """How a record carries its page."""

    ZERO = 0
    NORMAL = 1
    XBZRLE = 2
    COMPRESSED = 3
    ENCRYPTED = 4


KindName = Literal["zero", "normal", "xbzrle", "compressed", "encrypted"]
#: By kind.
KIND_NAMES: tuple[KindName, ...] = ("zero", "normal", "xbzrle", "compressed", "encrypted")


class Road(IntEnum):
    """How a page travels; xbzrle and compression are ways to go the normal one."""

    NORMAL = 0
    ZERO = 1
    ENCRYPTED = 2


#: By kind.
ROAD_OF = np.array([Road.ZERO, Road.NORMAL, Road.NORMAL, Road.NORMAL, Road.ENCRYPTED], np.int64)


class Block(NamedTuple):
    """A RAMBlock of the stream's table.

    Attributes:
        name: as it is sent.
        npages: its size.
        first: number of its first page, where the pages of all blocks are counted through.
    """

    name: str
    npages: int
    first: int


class Found(NamedTuple):
    """Records as they were found; arrays of one length.

    Attributes:
        headers: offset and flags.
        starts: where a record begins in the buffer.
        bodies: where its header and the RAMBlock's name end.
        sizes: its bytes.
        blocks: numbers of the RAMBlocks.
    """

    headers: NDArray[np.uint64]
    starts: NDArray[np.int64]
    bodies: NDArray[np.int64]
    sizes: NDArray[np.int64]
    blocks: NDArray[np.int64]

    def head(self, count: int) -> Found:
        """The first ones."""
        return Found(
            self.headers[:count],
            self.starts[:count],
            self.bodies[:count],
            self.sizes[:count],
            self.blocks[:count],
        )


@dataclass(frozen=True, slots=True)
class Batch:
    """Records in the order of the stream; each array has one element for each record.

    Attributes:
        kinds: of :class:`Kind`.
        blocks: numbers of their RAMBlocks.
        pages: pages of the RAMBlock.
        ordinals: the same pages, where those of all blocks are counted through.
        starts: where a record begins in ``view``.
        bodies: where its header and the RAMBlock's name end.
        sizes: its bytes.
        view: bytes of the stream; they are others as soon as the next batch is asked for.
        base: where ``view`` begins in the file.
    """

    kinds: NDArray[np.uint8]
    blocks: NDArray[np.int64]
    pages: Pages
    ordinals: Pages
    starts: NDArray[np.int64]
    bodies: NDArray[np.int64]
    sizes: NDArray[np.int64]
    view: NDArray[np.uint8]
    base: int

    def tails(self, which: NDArray[np.int64], size: int) -> NDArray[np.uint8]:
        """The last bytes of records, by their index: of a normal or encrypted one, its page."""
        ends = self.starts[which] + self.sizes[which]
        found: NDArray[np.uint8] = self.view[ends[:, None] + np.arange(-size, 0)]
        return found
