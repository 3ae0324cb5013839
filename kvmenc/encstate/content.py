"""Private/shared by looking at page contents from the host: all that mainline SEV hosts offer.

What it can know, and what not:

- a page called shared holds bytes that are no ciphertext. Ciphertext fails this test with a
  probability of at most ``FALSE_SHARED_PROBABILITY`` a page (proved, see ``ciphertext``);
- a page called private or random may be shared and hold compressed, encrypted or random data.
  No statistics bound how often: its count is an upper limit of private pages, not an estimate;
- a zero page is shared or was never written, and is not claimed to be private;
- a page that was flipped and not yet wholly rewritten shows what it was before.

Memory in guest_memfd cannot be seen at a slot's host address, so nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.encstate.ciphertext import PAGE_BYTES, PageClass, classify
from kvmenc.encstate.contentreport import ContentReport
from kvmenc.errors import NotSupported
from kvmenc.memory.slots import MemSlot
from kvmenc.memory.words import Words, ones

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from kvmenc.encstate.kinds import VmKind

__all__ = ["ContentSource", "PageReader", "sample_pages"]

# (slot, first page in the slot, number of pages) -> the bytes of that many pages, or of fewer if
# the rest cannot be read.
PageReader = Callable[[MemSlot, int, int], "bytes | memoryview | NDArray[np.uint8]"]

_CHUNK_PAGES = 64  # one word of a bitmap, and the batch that classify() likes best

_NO_CLASSES = np.empty(0, np.uint8)


class ContentSource:
    """A ``PrivateSource``: 1 = private or random, or unread; 0 = shared or zero.

    Args:
        read_pages: how to read guest memory, for example ``Contents(pid, layout).read_pages``.
        kind: the VM's kind.

    Attributes:
        report: what the last reading found; complete when it has ended.

    Raises:
        NotSupported: contents say nothing about this kind of VM.
    """

    name = "content"

    def __init__(self, read_pages: PageReader, kind: VmKind) -> None:
        if kind.uses_guest_memfd:
            msg = (
                f"page contents say nothing about a {kind} guest: its private pages are in"
                " guest_memfd, which the host cannot read"
            )
            raise NotSupported(msg)
        self._read_pages = read_pages
        self.report = ContentReport.of(0, _NO_CLASSES)

    def read(self, slots: Sequence[MemSlot]) -> Iterator[tuple[MemSlot, Words]]:
        """Read every page of ``slots`` and yield each slot's private words."""
        self.report = ContentReport.of(0, _NO_CLASSES)
        for slot in slots:
            words = ones(slot.npages)
            octets = words.view(np.uint8)
            for first in range(0, slot.npages, _CHUNK_PAGES):
                npages = min(_CHUNK_PAGES, slot.npages - first)
                classes = self._classify_run(slot, first, npages)
                private = np.packbits(classes >= PageClass.PRIVATE_OR_RANDOM, bitorder="little")
                octets[first // 8 :][: len(private)] = private
                self.report += ContentReport.of(npages, classes)
            yield slot, words

    def survey(self, slots: Sequence[MemSlot]) -> ContentReport:
        """Read every page of ``slots`` for the counts alone."""
        for _ in self.read(slots):
            pass
        return self.report

    def sample(
        self, slots: Sequence[MemSlot], npages: int, rng: np.random.Generator
    ) -> ContentReport:
        """Read ``npages`` pages drawn from all of ``slots``, each equally likely, none twice."""
        classes = [
            self._classify_run(slot, page, 1)
            for slot, pages in sample_pages(slots, npages, rng)
            for page in pages.tolist()
        ]
        total = sum(slot.npages for slot in slots)
        return ContentReport.of(total, np.concatenate([_NO_CLASSES, *classes]))

    def _classify_run(self, slot: MemSlot, first: int, npages: int) -> NDArray[np.uint8]:
        classes = np.full(npages, PageClass.UNREAD, np.uint8)
        done = 0
        while done < npages:
            pages = _whole_pages(self._read_pages(slot, first + done, npages - done))
            if not len(pages):
                break
            pages = pages[: npages - done]
            classes[done : done + len(pages)] = classify(pages)
            done += len(pages)
        return classes


def _whole_pages(data: bytes | memoryview | NDArray[np.uint8]) -> NDArray[np.uint8]:
    octets = np.frombuffer(data, np.uint8)
    npages = len(octets) // PAGE_BYTES
    return octets[: npages * PAGE_BYTES].reshape(npages, PAGE_BYTES)


def sample_pages(
    slots: Sequence[MemSlot], npages: int, rng: np.random.Generator
) -> Iterator[tuple[MemSlot, NDArray[np.int64]]]:
    """Draw ``npages`` pages (or all, if fewer) of all ``slots``, each equally likely, none twice.

    Yields:
        Each slot that was hit, and the pages within it, ascending. The cost follows ``npages``,
        not the size of the slots.
    """
    sizes = np.array([slot.npages for slot in slots], np.int64)
    starts = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    drawn = np.sort(rng.choice(total, min(npages, total), replace=False, shuffle=False))
    first, last = np.searchsorted(drawn, starts), np.searchsorted(drawn, starts + sizes)
    for slot, start, lo, hi in zip(slots, starts, first, last, strict=True):
        if lo < hi:
            yield slot, drawn[lo:hi] - start
