"""The guest that a rehearsal has without a scenario: hot pages of both kinds, and conversions."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from fakekvm.guests import Flip, PortOut, Rest, WritePages, part_of, placed
from kvmenc.rehearsal.vcpus import UP_PORT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from fakekvm.guests import Script, Step
    from fakekvm.scripts import WritableGfns
    from kvmenc.rehearsal.side import Side

__all__ = ["BuiltIn"]

_HOT_PAGES, _HOT_SHARE = 400, 8
_CONVERTED_PAGES, _RUN_PAGES = 64, 4
_WRITE_PAGES, _WRITES_PER_CONVERSION = 16, 8
_PAGES_PER_S = 10_000
#: Of its shared pages so many are never used.
_ZERO_SHARE = 0.4


class BuiltIn:
    """Scripts: vCPU 0 of a guest that announces what it shares, and goes to work.

    Its first pages are private. It converts some of them to and fro, in both orders that there are:
    announced, then written; and written in place, then announced.

    Args:
        private_share: of all pages.
        seed: of its random numbers.
    """

    def __init__(self, private_share: float, seed: int) -> None:
        self._private_share, self._seed = private_share, seed
        self.about = "the built-in guest"

    def script(self, _vm: int, vcpu: int, writable: WritableGfns) -> Script:
        """Its steps, without end."""
        if vcpu:
            return
        memory = list(writable().values())
        npages = sum(map(len, memory))
        nprivate = self._nprivate(npages)
        for area in part_of(memory, range(nprivate, npages)):
            yield Flip(area.start, len(area), private=False)
        yield PortOut(UP_PORT, 0)
        yield from placed(self._work(nprivate, npages), memory)

    def fill(self, side: Side) -> None:
        """What it has loaded before it runs: each page with a content of its own."""
        for block in side.layout.blocks:
            nprivate = self._nprivate(block.npages)
            used = nprivate + round((block.npages - nprivate) * (1 - _ZERO_SHARE))
            words = side.rows(block).view(np.uint64)
            words[1:used, 1] = np.arange(1, used, dtype=np.uint64)

    def _nprivate(self, npages: int) -> int:
        return round(self._private_share * npages)

    def _work(self, nprivate: int, npages: int) -> Iterator[Step]:
        rng = np.random.default_rng(self._seed)
        hot = np.concatenate([_hot(1, nprivate), _hot(max(1, nprivate), npages)])
        conversions = _conversions(nprivate)
        for value in itertools.count(1):
            yield WritePages(rng.choice(hot, _WRITE_PAGES), value)
            yield Rest(_WRITE_PAGES / _PAGES_PER_S)
            if value % _WRITES_PER_CONVERSION == 0:
                yield from itertools.islice(conversions, 1)


def _hot(first: int, end: int) -> NDArray[np.int64]:
    """The first of some pages."""
    count = min(_HOT_PAGES, (end - first) // _HOT_SHARE)
    return np.arange(first, first + max(0, count))


def _conversions(nprivate: int) -> Iterator[Step]:
    """The last private pages, a run after the other, each made shared and private again."""
    first = max(1, nprivate - _CONVERTED_PAGES)
    if nprivate - first < _CONVERTED_PAGES // 2:
        return
    runs = range(first, nprivate - _RUN_PAGES + 1, _RUN_PAGES)
    for value, start in enumerate(itertools.cycle(runs)):
        pages = np.arange(start, start + _RUN_PAGES)
        yield Flip(start, _RUN_PAGES, private=False)
        yield WritePages(pages, -value)
        yield WritePages(pages, value)
        yield Flip(start, _RUN_PAGES, private=True)
