"""Both ends beside each other: every page as its guest reads it, and its state."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.guest.scratch import PAGE
from kvmenc.rehearsal.result import MOST_TOLD, Comparison, WrongPage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kvmenc.memory.words import Pages
    from kvmenc.rehearsal.destination import Target
    from kvmenc.rehearsal.side import Flags, Rows, Side

__all__ = ["compare_ends", "digest", "same_memory"]

#: 4 MiB of contents are looked at at once.
_LOOK_PAGES = 1024


def compare_ends(source: Side, target: Target) -> Comparison:
    """Every page of every RAMBlock; both guests must be stopped.

    A guest reads a page as its own page table says, which went with it; what it last announced is
    taken for that. The destination's KVM may think otherwise, and that is a wrong state.
    """
    here, there = source.private_now(), target.private_now()
    pages = wrong_pages = wrong_states = 0
    told: list[WrongPage] = []
    for number, block in enumerate(source.layout.blocks):
        for run in _runs(block.npages):
            where = np.arange(run.start, run.stop)
            private, other = here[block.name].at(where), there[block.name].at(where)
            wrong = _wrong(source, target, number, run, private)
            pages += where.size
            wrong_pages += int(wrong.sum())
            wrong_states += int((private != other).sum())
            for at in np.flatnonzero(wrong | (private != other))[: MOST_TOLD - len(told)]:
                page = WrongPage(block.name, int(where[at]), bool(private[at]), bool(other[at]))
                told.append(page)
    return Comparison(pages, wrong_pages, wrong_states, tuple(told))


def _wrong(source: Side, target: Target, number: int, run: slice, private: Flags) -> Flags:
    """Which pages of a run are not the same; pages cross the line only where some are not."""
    block = source.layout.blocks[number]
    theirs = target.digest_later(number, run, private)
    if source.digest(block, run, private) == theirs():
        return np.zeros(private.size, np.bool_)
    views = source.view(block, run, private), target.view(number, run, private)
    return _differ(private.size, *views)


def _differ(npages: int, ours: tuple[Pages, Rows], theirs: tuple[Pages, Rows]) -> Flags:
    """Which pages are not the same at both ends; what an end does not hold is zero there."""
    held = np.zeros((2, npages), np.intp)
    for row, (pages, _rows) in enumerate((ours, theirs)):
        held[row, pages] = 1 + np.arange(pages.size)
    some = np.flatnonzero(held.any(axis=0))
    differ = np.zeros(npages, np.bool_)
    one, other = (_with_zero(it[1])[held[row, some]] for row, it in enumerate((ours, theirs)))
    differ[some] = (one != other).any(axis=1)
    return differ


def _with_zero(rows: Rows) -> NDArray[np.uint64]:
    """A page of zeros, and the rows after it."""
    return np.concatenate([np.zeros((1, PAGE), np.uint8), rows]).view(np.uint64)


def _runs(npages: int) -> Iterator[slice]:
    for first in range(0, npages, _LOOK_PAGES):
        yield slice(first, min(first + _LOOK_PAGES, npages))


def digest(side: Side) -> str:
    """Of all that a stopped guest reads, and of its states."""
    found, private = hashlib.blake2b(digest_size=16), side.private_now()
    for block in side.layout.blocks:
        for pages in _runs(block.npages):
            flags = private[block.name].at(np.arange(pages.start, pages.stop))
            found.update(flags.tobytes() + side.digest(block, pages, flags))
    return found.hexdigest()


def same_memory(one: Side, other: Side) -> bool:
    """Whether two fakes' memory holds the same bytes, and their states are the same.

    Two fakes of one chip's name differ in the page that was launched alone: its key's stream is
    another at another address. What was launched there is compared as the guest reads it; what the
    guest has written since went to memory as it is.
    """
    here, there = one.private_now(), other.private_now()
    if any((here[name].words != there[name].words).any() for name in here):
        return False
    for block, twin in zip(one.layout.blocks, other.layout.blocks, strict=True):
        for pages in _runs(block.npages):
            differ = (one.rows(block)[pages] != other.rows(twin)[pages]).any(axis=1)
            if differ[1:].any() or (differ[0] and pages.start):
                return False
    first = np.ones(1, np.bool_)
    blocks = [(it, it.layout.blocks[0]) for it in (one, other)]
    views = [side.view(block, slice(0, 1), first)[1][0] for side, block in blocks]
    rows = [side.rows(block)[0] for side, block in blocks]
    return bool(((views[0] == views[1]) | (rows[0] == rows[1])).all())
