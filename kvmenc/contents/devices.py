"""Pages written by devices, which KVM's dirty log never holds: estimated by their contents.

Writes by QEMU's devices, vhost and VFIO set no bit in KVM's log. A page that has changed while its
bit is clear was written by one of them. The order is what makes it true:

1. the log is on and every bit is clear;
2. ``baseline`` hashes the sampled pages;
3. ``look`` hashes them again;
4. only then the caller peeks the log, and gives ``written`` all bits set since 1.

Whatever a vCPU wrote before 3 read it has its bit set by 4. Without hardware logging the page was
write-protected; the fault that lifts this marks the page dirty, before the page becomes writable
(Linux v6.12, arch/x86/kvm/mmu/spte.c, make_spte) or, with interrupts off, a few instructions after
(arch/x86/kvm/mmu/mmu.c, fast_pf_fix_direct_spte; KVM's own writes, virt/kvm/kvm_main.c,
__kvm_write_guest_page, likewise). With Intel's page-modification logging the bit waits in a buffer
of the vCPU; reading the log kicks the vCPUs so that they empty it, but does not wait for them
(arch/x86/kvm/x86.c, kvm_arch_sync_dirty_log). So on such a host the caller peeks twice and takes
the second answer. A page torn by a vCPU writing while it is read has its bit set just so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.contents.bounds import CONFIDENCE, Estimate, estimate
from kvmenc.contents.hashing import PageHash
from kvmenc.memory.words import count, ranges, set_ranges, zeros

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from kvmenc.contents.reader import Contents
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.maps import DirtyMap
    from kvmenc.memory.slots import RamBlock
    from kvmenc.memory.words import Pages, Words

__all__ = ["DeviceEstimate", "DeviceWrites", "Look"]


class Look(NamedTuple):
    """The sampled pages at one time, in the order of the sample.

    Attributes:
        hashes: of their contents.
        seen: which of them could be read.
    """

    hashes: NDArray[np.uint64]
    seen: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class DeviceEstimate:
    """Pages that changed since the baseline while their dirty bit was clear.

    Attributes:
        total: over all blocks.
        blocks: by RAMBlock; each has its bounds for itself.
        sampled_pages: pages looked at.
        population_pages: pages drawn from.
        confidence: with what probability bounds hold, at least.
    """

    total: Estimate
    blocks: dict[str, Estimate]
    sampled_pages: int
    population_pages: int
    confidence: float = CONFIDENCE


class _Sample(NamedTuple):
    """The pages drawn of one RAMBlock: which, where they stand in a Look, out of how many."""

    block: RamBlock
    pages: Pages
    where: slice
    population: int


class DeviceWrites:
    """Estimates how many pages devices have written since a baseline.

    Drawn from are all pages of the blocks that lie in a slot with a dirty log, each as likely;
    elsewhere a device's write cannot be told from a vCPU's. A page never touched counts as zeros.

    A page written with the bytes it held is not seen: it need not be sent again either. A page that
    a vCPU has written as well is not counted: the log has it. Memory that the guest gives back
    (balloon) and that was not zero has changed. A page swapped out both times counts as unchanged;
    one that was swapped out at one of them may have changed: only upper bounds count it.

    Args:
        contents: the guest's.
        blocks: the RAMBlocks to look at.
        budget_pages: how many pages to hash at each look; all, if there are no more.
        rng: draws the sample and the keys of the hash.
    """

    def __init__(
        self,
        contents: Contents,
        blocks: Sequence[RamBlock],
        budget_pages: int,
        rng: np.random.Generator,
    ) -> None:
        self._contents = contents
        self._hash = PageHash(rng, contents.layout.page_size)
        logged = {block: _logged(contents.layout, block) for block in blocks}
        self._samples = _draw(logged, budget_pages, rng)
        self._baseline: Look | None = None

    def baseline(self) -> None:
        """Hash every sampled page: what changes is counted from here.

        The dirty log must be on, and clear as far as ``written`` will be told.
        """
        self._baseline = self.look()

    def look(self) -> Look:
        """Hash every sampled page again. Peek the dirty log after it, not before."""
        total = sum(sample.pages.size for sample in self._samples)
        look = Look(np.empty(total, np.uint64), np.empty(total, np.bool_))
        for sample in self._samples:
            hashes, seen = look.hashes[sample.where], look.seen[sample.where]
            for some, rows, readable in self._contents.batches(sample.block, sample.pages):
                hashes[some], seen[some] = self._hash(rows), readable
        return look

    def written(self, look: Look, dirty: Mapping[str, DirtyMap]) -> DeviceEstimate:
        """How many pages devices have written between the baseline and a look.

        Args:
            look: of after the baseline.
            dirty: by RAMBlock: every dirty bit set since the baseline, read after the look.
        """
        if self._baseline is None:
            raise RuntimeError("there is no baseline to compare with")
        changed = (look.hashes != self._baseline.hashes) & look.seen & self._baseline.seen
        unsure = look.seen != self._baseline.seen
        hits, doubts, blocks = 0, 0, {}
        for block, pages, where, population in self._samples:
            clean = ~dirty[block.name].at(pages)
            block_hits = int((changed[where] & clean).sum())
            block_doubts = int((unsure[where] & clean).sum())
            blocks[block.name] = estimate(block_hits, pages.size, population, block_doubts)
            hits, doubts = hits + block_hits, doubts + block_doubts
        sampled = look.hashes.size
        population = sum(sample.population for sample in self._samples)
        total = estimate(hits, sampled, population, doubts)
        return DeviceEstimate(total, blocks, sampled, population)


def _logged(layout: Layout, block: RamBlock) -> Words:
    """The pages of a RAMBlock that lie in a slot with a dirty log."""
    pieces = [piece for slot in layout.logged_slots for piece in layout.pieces_of(slot)]
    mine = [(piece.block_page, piece.block_end) for piece in pieces if piece.block == block]
    starts, ends = np.array(mine, np.int64).reshape(-1, 2).T
    words = zeros(block.npages)
    set_ranges(words, starts, ends)
    return words


def _draw(logged: Mapping[RamBlock, Words], npages: int, rng: np.random.Generator) -> list[_Sample]:
    """Draw from the logged pages of all blocks, each as likely, none twice."""
    sizes = [count(words, block.npages) for block, words in logged.items()]
    starts = np.cumsum(sizes) - sizes
    total = sum(sizes)
    drawn = np.sort(rng.choice(total, min(npages, total), replace=False, shuffle=False))
    samples = []
    for (block, words), start, size in zip(logged.items(), starts.tolist(), sizes, strict=True):
        lo, hi = np.searchsorted(drawn, [start, start + size]).tolist()
        pages = _nth_pages(words, block.npages, drawn[lo:hi] - start)
        samples.append(_Sample(block, pages, slice(lo, hi), size))
    return samples


def _nth_pages(words: Words, npages: int, numbers: Pages) -> Pages:
    """The pages of those numbers, if only the pages whose bit is set are counted."""
    starts, ends = ranges(words, npages)
    before = np.cumsum(ends - starts) - (ends - starts)
    index = np.searchsorted(before, numbers, "right") - 1
    pages: Pages = numbers + (starts - before)[index]
    return pages
