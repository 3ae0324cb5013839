"""Records with whole pages, of kinds that change: many chains are followed at once, in step.

The stretch is cut into lanes. In each the first place is looked for that could be a record's begin,
and is followed by another; from there it goes from record to record, in all lanes at once. What a
lane has found counts if the lane before it ends where it begins: only what is reached from the
stretch's first byte is a record. Most pages are gone past unseen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.stream.wire import Ram

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEAST_BYTES", "follow", "numbers_at"]

#: Some pages: looking for a lane's first record costs as much as following the others, then.
_LANE_BYTES = 1 << 16
#: Of less there are too few lanes.
LEAST_BYTES = 16 * _LANE_BYTES
#: In a lane. Where there are more records, there are runs or small ones, which have their own ways.
_MOST_STEPS = 256
_CONTINUE = int(Ram.CONTINUE)


def numbers_at(
    view: NDArray[np.uint8], at: NDArray[np.int64], layout: str
) -> NDArray[np.unsignedinteger]:
    """Numbers of a numpy ``layout``, such as ``>u4``, at places of any alignment."""
    count = view.size - np.dtype(layout).itemsize + 1
    found: NDArray[np.unsignedinteger] = np.ndarray(count, layout, view, strides=(1,))[at]
    return found


def follow(view: NDArray[np.uint8], sizes: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Records of known sizes, one after the other from the first byte on.

    Args:
        view: some of a stream, at least LEAST_BYTES.
        sizes: bytes of a record by its flags; 0: it is not followed.

    Returns:
        Where each begins, and where the last one ends.
    """
    flags, mask, longest = _flags(view), sizes.size - 1, int(sizes.max())
    at = _begins(view, sizes, longest)
    limits = np.append(np.arange(1, at.size) * _LANE_BYTES, view.size - longest - 8)
    places = [at]
    for _ in range(_MOST_STEPS):
        step = sizes[flags[at] & mask] * (at < limits)
        if not step.any():
            break
        at = at + step
        places.append(at)
    return _joined(np.array(places))


def _joined(places: NDArray[np.int64]) -> tuple[NDArray[np.int64], int]:
    """Lanes that go on where the one before them ends; ``places`` of shape (steps, lanes)."""
    apart = np.flatnonzero(places[-1, :-1] != places[0, 1:])
    lanes = places.T[: apart[0] + 1 if apart.size else None]
    return lanes[:, :-1][lanes[:, 1:] > lanes[:, :-1]], int(lanes[-1, -1])


def _begins(view: NDArray[np.uint8], sizes: NDArray[np.int64], longest: int) -> NDArray[np.int64]:
    """Of each lane, the first place that looks like a record's; if there is none, the last one."""
    nlanes = 1 + (view.size - 2 * longest - 8) // _LANE_BYTES
    shape, strides = (nlanes - 1, longest + 8), (_LANE_BYTES, 1)
    look = np.ndarray(shape, np.uint8, view, _LANE_BYTES, strides)
    seen = (look[:, :longest] == 0) & (look[:, 1:-7] == 0) & (look[:, 7:-1] & _CONTINUE > 0)
    lanes, within = np.divmod(np.flatnonzero(seen), longest)
    at, flags, mask = (1 + lanes) * _LANE_BYTES + within, _flags(view), sizes.size - 1
    size = sizes[flags[at] & mask]
    sound = (size > 0) & (sizes[flags[at + size] & mask] > 0)
    found, first = np.unique(lanes[sound], return_index=True)
    begins = np.full(nlanes, view.size - 8)
    begins[0], begins[1 + found] = 0, at[sound][first]
    return begins


def _flags(view: NDArray[np.uint8]) -> NDArray[np.unsignedinteger]:
    """Wherever a header could begin, what its last two bytes would be."""
    return np.ndarray(view.size - 7, ">u2", view, 6, strides=(1,))
