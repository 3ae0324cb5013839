"""The join of memslots and RAMBlocks by host address: which page of which is which of the other."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from itertools import chain, groupby, pairwise
from operator import itemgetter
from typing import TYPE_CHECKING

from kvmenc.errors import LayoutError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from kvmenc.memory.slots import MemSlot, RamBlock

__all__ = ["Alias", "Piece", "join"]


@dataclass(frozen=True, slots=True)
class Alias:
    """Pages of a RAMBlock that the guest sees at more than one gfn; a longest such run."""

    block: RamBlock
    block_page: int
    npages: int


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of pages that lie side by side both in a memslot and in a RAMBlock.

    Attributes:
        slot: the memslot.
        slot_page: the run's first page, counted from the slot's first.
        block: the RAMBlock.
        block_page: the run's first page, counted from the RAMBlock's first.
        npages: its length in pages.
        alias: the alias that the whole run is part of, None if its pages have one gfn.
    """

    slot: MemSlot
    slot_page: int
    block: RamBlock
    block_page: int
    npages: int
    alias: Alias | None = None

    @property
    def block_end(self) -> int:
        """The first page of the RAMBlock after the run."""
        return self.block_page + self.npages

    @property
    def gfn_of_block(self) -> int:
        """The gfn that the RAMBlock's page 0 has, or would have, by this piece; may be negative.

        Two pieces of a RAMBlock agree on it where they show its pages at the same gfns.
        """
        return self.slot.base_gfn + self.slot_page - self.block_page


def join(
    slots: Iterable[MemSlot], blocks: Iterable[RamBlock], page_size: int
) -> dict[MemSlot, tuple[Piece, ...]]:
    """Every slot's pieces, in the order of its pages.

    Slots, blocks and their addresses are taken to be sound in themselves; blocks do not overlap.

    Raises:
        LayoutError: a page of a slot lies in no RAMBlock.
    """
    ordered = sorted(blocks, key=lambda block: block.host_addr)
    whole = {slot: list(_backing(slot, ordered, page_size)) for slot in slots}
    by_block: defaultdict[RamBlock, list[Piece]] = defaultdict(list)
    for piece in chain.from_iterable(whole.values()):
        by_block[piece.block].append(piece)
    aliases = {block: list(_aliases(block, pieces)) for block, pieces in by_block.items()}
    return {
        slot: tuple(chain.from_iterable(_cut(piece, aliases[piece.block]) for piece in pieces))
        for slot, pieces in whole.items()
    }


def _backing(slot: MemSlot, blocks: Sequence[RamBlock], page_size: int) -> Iterator[Piece]:
    """The RAMBlocks (given in the order of their addresses) behind a slot."""
    page = 0
    while page < slot.npages:
        addr = slot.userspace_addr + page * page_size
        index = bisect_right(blocks, addr, key=lambda block: block.host_addr) - 1
        block_page = (addr - blocks[index].host_addr) // page_size if index >= 0 else 0
        if index < 0 or block_page >= blocks[index].npages:
            raise LayoutError(f"{slot}: its page {page}, at {addr:#x}, lies in no RAMBlock")
        npages = min(slot.npages - page, blocks[index].npages - block_page)
        yield Piece(slot, page, blocks[index], block_page, npages)
        page += npages


def _aliases(block: RamBlock, pieces: Iterable[Piece]) -> Iterator[Alias]:
    """Where pieces of a RAMBlock overlap and do not agree on the gfn.

    The same gfn in another address space is no alias: it is the gfn that is private or shared.
    """
    steps = [(piece.block_page, 1, piece.gfn_of_block) for piece in pieces]
    steps += [(piece.block_end, -1, piece.gfn_of_block) for piece in pieces]
    open_gfns: Counter[int] = Counter()
    start = 0
    for page, here in groupby(sorted(steps), key=itemgetter(0)):
        was_alias = len(open_gfns) > 1
        for _, step, gfn in here:
            open_gfns[gfn] += step
            if not open_gfns[gfn]:
                del open_gfns[gfn]
        is_alias = len(open_gfns) > 1
        if is_alias and not was_alias:
            start = page
        elif was_alias and not is_alias:
            yield Alias(block, start, page - start)


def _cut(piece: Piece, aliases: Sequence[Alias]) -> Iterator[Piece]:
    """The piece in parts, each wholly in one alias or in none (aliases in ascending order)."""
    edges = [edge for it in aliases for edge in (it.block_page, it.block_page + it.npages)]
    inner = edges[bisect_right(edges, piece.block_page) : bisect_left(edges, piece.block_end)]
    for start, end in pairwise([piece.block_page, *inner, piece.block_end]):
        crossed = bisect_right(edges, start)
        yield replace(
            piece,
            slot_page=piece.slot_page + start - piece.block_page,
            block_page=start,
            npages=end - start,
            alias=aliases[crossed // 2] if crossed % 2 else None,
        )
