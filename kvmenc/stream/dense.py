"""Small records of any kind and RAMBlock, found by their look: all that can be one, then the chain.

Of every byte it is asked whether a plain record can begin there, and where that would end. The
records are those that are reached from the first one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.stream.wire import Ram

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

__all__ = ["Candidates", "chain", "find_candidates"]

_CONTINUE = int(Ram.CONTINUE)


class Candidates(NamedTuple):
    """Where plain records can begin, in ascending order.

    Attributes:
        starts: of each.
        ends: behind it.
        blocks: the RAMBlock that it names; -1: it stays the same.
    """

    starts: NDArray[np.int64]
    ends: NDArray[np.int64]
    blocks: NDArray[np.int64]


def find_candidates(
    view: NDArray[np.uint8], payloads: Sequence[int], names: Mapping[bytes, int], mask: int
) -> Candidates:
    """All in ``view`` that end in it, but for those whose size takes four bytes to say.

    Args:
        view: some of a stream.
        payloads: by flags without CONTINUE, bytes that follow header and name; 0: not plain; -1: a
            byte 1 and a be16 say them.
        names: of the RAMBlocks.
        mask: of flags.
    """
    room = max(0, view.size - 8)
    low = view[6 : 6 + room].astype(np.uint16) << 8 | view[7 : 7 + room]
    sizes = np.array(payloads, np.int64)
    plain = sizes[np.arange(mask + 1) & ~_CONTINUE] != 0
    seen = plain[low & mask] & (view[:room] == 0) & (view[1 : 1 + room] == 0)
    starts = np.flatnonzero(seen)
    flags = low[starts] & mask
    bodies, blocks = _named(view, starts, flags & _CONTINUE == 0, names)
    payload = sizes[flags & ~np.uint16(_CONTINUE)]
    told = np.flatnonzero((payload == -1) & (bodies + 3 <= view.size))
    at = bodies[told]
    size = view[at + 1].astype(np.int64) << 8 | view[at + 2]
    payload[told] = np.where((view[at] == 1) & (size <= mask + 1), 3 + size, 0)
    ends = bodies + payload
    sound = (payload > 0) & (blocks != -2) & (ends <= view.size)
    return Candidates(starts[sound], ends[sound], blocks[sound])


def _named(
    view: NDArray[np.uint8],
    starts: NDArray[np.int64],
    naming: NDArray[np.bool_],
    names: Mapping[bytes, int],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the bodies begin, and which RAMBlocks are named; -2: none that there is."""
    bodies, blocks = starts + 8, np.where(naming, -2, -1)
    which = np.flatnonzero(naming)
    for name, block in names.items():
        spelled = np.frombuffer(bytes([len(name)]) + name, np.uint8)
        fits = which[starts[which] + 8 + spelled.size <= view.size]
        text = view[starts[fits][:, None] + 8 + np.arange(spelled.size)]
        found = fits[(text == spelled).all(axis=1)]
        blocks[found] = block
        bodies[found] += spelled.size
    return bodies, blocks


def chain(found: Candidates) -> NDArray[np.int64]:
    """Indices of those that follow each other from the view's first byte on."""
    starts, ends = found.starts, found.ends
    if not starts.size or starts[0]:
        return np.empty(0, np.int64)
    following = np.searchsorted(starts, ends)
    last = following >= starts.size
    last[~last] = starts[following[~last]] != ends[~last]
    breaks = np.flatnonzero(last | (following != np.arange(1, starts.size + 1)))
    runs, at = [], 0
    while True:
        k = int(breaks[np.searchsorted(breaks, at)])
        runs.append(np.arange(at, k + 1))
        if last[k]:
            return np.concatenate(runs)
        at = int(following[k])
