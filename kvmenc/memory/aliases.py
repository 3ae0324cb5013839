"""What to believe of a page that the guest sees at several gfns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.memory import words as kernels

if TYPE_CHECKING:
    from kvmenc.memory.join import Alias, Piece
    from kvmenc.memory.words import Words

__all__ = ["AliasState"]


class AliasState:
    """The state of an alias's pages, gathered from all their gfns before any of it is used.

    A page is private if every one of its gfns is. The two answers are not worth the same: shared is
    something the guest announced, while private is also what the kernel says of a gfn that nobody
    ever announced, as the second gfn of an aliased page usually is. And taken one after the other,
    gfns that disagree would make the page flip to and fro at every sync.

    Attributes:
        every: 1 = private at every gfn; bit 0 is the alias's first page.
        some: 1 = private at some gfn.
    """

    def __init__(self, alias: Alias) -> None:
        self._alias = alias
        self.every = kernels.ones(alias.npages)
        self.some = kernels.zeros(alias.npages)

    def add(self, piece: Piece, words: Words) -> None:
        """Take in the slot's words for a piece of the alias."""
        at = piece.block_page - self._alias.block_page
        kernels.and_bits(self.every, at, words, piece.slot_page, piece.npages)
        kernels.or_bits(self.some, at, words, piece.slot_page, piece.npages)

    @property
    def disagreeing_pages(self) -> int:
        """Pages that are private at some gfn and shared at another."""
        return kernels.count_split(self.some, self.every, self._alias.npages)[1]
