"""DirtyMap and PrivateMap: bitmaps of one shape that must never be mistaken for each other.

A dirty bit is an event: merged by OR, taken when its page is sent. A private bit is a state: copied
as it is, and no clearing of dirtiness touches it. No operator mixes the two.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from kvmenc.memory import words as kernels

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kvmenc.memory.words import Pages, Words

__all__ = ["DirtyMap", "PrivateMap"]


class _PageMap:
    """One bit for each page of a RAMBlock.

    Attributes:
        words: the bits, ``words_for(npages)`` words; those past the last page are 0.
        npages: how many pages there are.
    """

    __slots__ = ("npages", "words")

    def __init__(self, words: Words, npages: int) -> None:
        self.words = words
        self.npages = npages

    @property
    def pages(self) -> int:
        """How many pages have their bit set."""
        return kernels.count(self.words, self.npages)

    def at(self, pages: Pages) -> NDArray[np.bool_]:
        """The bits of these pages. A page beyond the block is an InputError."""
        return kernels.bits_at(self.words, pages)

    def ranges(self) -> tuple[Pages, Pages]:
        """Starts and ends (exclusive), in pages, of the runs of set bits."""
        return kernels.ranges(self.words, self.npages)


class DirtyMap(_PageMap):
    """The pages of a RAMBlock written since they were last taken: 1 = dirty. At first none is."""

    __slots__ = ()

    def __init__(self, npages: int) -> None:
        super().__init__(kernels.zeros(npages), npages)

    @classmethod
    def all_dirty(cls, npages: int) -> Self:
        """Every page dirty, as before the first round of a migration."""
        dirty = cls(npages)
        dirty.words[:] = kernels.ones(npages)
        return dirty

    def merge(self, other: DirtyMap) -> None:
        """OR another map of the same RAMBlock into this one."""
        kernels.or_bits(self.words, 0, other.words, 0, self.npages)

    def clear(self) -> None:
        """Make every page clean."""
        self.words[:] = 0

    def take(self) -> DirtyMap:
        """What is dirty, leaving nothing dirty here."""
        taken = DirtyMap(self.npages)
        self.words, taken.words = taken.words, self.words
        return taken

    def split(self, private: PrivateMap) -> tuple[int, int]:
        """How many of the dirty pages are private, and how many shared."""
        return kernels.count_split(self.words, private.words, self.npages)


class PrivateMap(_PageMap):
    """The pages of a RAMBlock encrypted with the guest's key: 1 = private. At first all are.

    Private is the kernel's default as well: every posted revision of KVM_GET_PAGE_ENC_BITMAP says
    of its bitmap "by default all pages are marked encrypted".
    """

    __slots__ = ()

    def __init__(self, npages: int) -> None:
        super().__init__(kernels.ones(npages), npages)

    @classmethod
    def all_shared(cls, npages: int) -> Self:
        """Every page shared, as in a RAMBlock whose override says so."""
        private = cls(npages)
        private.words[:] = 0
        return private
