"""Finds where records begin: runs of like ones at once, others one after the other.

Nothing is judged here. What is in any way odd ends the scan, and is read with care by the caller.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.stream.dense import chain, find_candidates
from kvmenc.stream.lanes import LEAST_BYTES, follow, numbers_at
from kvmenc.stream.wire import Ram

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["BY_BE16", "BY_BE32", "MOST_COMPRESSED_BYTES", "Shapes", "Walk", "be32", "be64", "like"]

#: Instead of a payload's size: a byte 1 and a be16 say it (xbzrle), or a be32 (compressed).
BY_BE16, BY_BE32 = -1, -2
#: zlib, compressBound(4096): QEMU 7.2, migration/ram.c, ``ram_load_precopy``.
MOST_COMPRESSED_BYTES = 4110

#: Each probe for a run reads so many times more than the last one found, up to a number that stays
#: in the CPU's cache.
_PROBE, _GROWTH, _MOST_ALIKE = 16, 16, 1 << 16
#: Records found one by one before they are handled together.
_MOST = 4096
#: So many alike in a row are worth a probe.
_STREAK = 64
#: Below so many bytes a record, and with no more RAMBlocks, records are found by their look, in a
#: stretch that grows where that pays.
_DENSE_BYTES, _MOST_NAMES = 48, 16
_LEAST_REGION, _MOST_REGION = 1 << 12, 1 << 17
_BE64, _BE32 = struct.Struct(">Q").unpack_from, struct.Struct(">I").unpack_from
_BE16 = struct.Struct(">BH").unpack_from
_CONTINUE = int(Ram.CONTINUE)


class Walk(NamedTuple):
    """Records found one after the other.

    Attributes:
        starts: where each begins.
        end: where the last one ends.
        changes: of records that name a RAMBlock, a row each: number of the record, the RAMBlock,
            bytes of its counted name.
    """

    starts: NDArray[np.int64]
    end: int
    changes: NDArray[np.int64]


def like(
    data: memoryview, pos: int, end: int, flags: int, payload: int, mask: int
) -> NDArray[np.uint64]:
    """Headers of records that follow at once, all with the same flags and size; may be none."""
    stride = 8 + payload
    fields = np.dtype({"names": ["h"], "formats": [">u8"], "offsets": [0], "itemsize": stride})
    room, count = min((end - pos) // stride, _MOST_ALIKE), _PROBE
    while True:
        count = min(count, room)
        headers: NDArray[np.uint64] = np.frombuffer(data, fields, count, pos)["h"].astype(np.uint64)
        alike = headers & np.uint64(mask) == np.uint64(flags)
        found = count if alike.all() else int(alike.argmin())
        if found < count or count == room:
            return headers[:found]
        count *= _GROWTH


class Shapes:
    """What is known of a stream's records: their sizes by flags, and the names of RAMBlocks.

    Args:
        page_bytes: bytes in a page; the lower bits of a header are flags.
        names: of the RAMBlocks, by number.

    Attributes:
        payloads: by flags without CONTINUE, how many bytes follow header and name; 0: not plain.
    """

    def __init__(self, page_bytes: int, names: Iterable[bytes] = ()) -> None:
        self.payloads = [0] * page_bytes
        self._mask = page_bytes - 1
        self._sizes = [0] * page_bytes
        self._array = np.zeros(page_bytes, np.int64)
        self._names = {name: i for i, name in enumerate(names)}
        self._region = _LEAST_REGION
        self._spelled = {len(it): struct.Struct(f"{len(it)}s").unpack_from for it in self._names}

    def learn(self, flag: int, payload: int) -> None:
        """Records with this flag are plain from now on."""
        self.payloads[flag] = payload
        size = 8 + payload if payload > 0 else 0
        self._sizes[flag | _CONTINUE] = self._array[flag | _CONTINUE] = size

    def named(self, name: bytes) -> int | None:
        """The number of a RAMBlock."""
        return self._names.get(name)

    def size_of_run(self, data: memoryview, pos: int) -> int:
        """Bytes of the record here, if all with its flags have as many; else 0."""
        header: int = _BE64(data, pos)[0]
        return self._sizes[header & self._mask]

    def walk(self, data: memoryview, pos: int, end: int) -> Walk:
        """Go from record to record while all is plain and complete, up to some thousand of them.

        Ends early where a run of like ones has begun.
        """
        starts: list[int] = []
        changes: list[int] = []
        while len(starts) < _MOST and pos + 8 < end:
            begin, run = pos, _STREAK * self.size_of_run(data, pos)
            pos = self._step(data, pos, end, starts, changes)
            if pos - begin == run or pos == begin or len(starts) % _STREAK:
                break
            if pos - begin < _STREAK * _DENSE_BYTES and len(self._names) <= _MOST_NAMES:
                return self._dense(data, pos, end, starts, changes)
            if len(starts) == _STREAK and end - pos >= LEAST_BYTES:
                found, size = follow(np.frombuffer(data, np.uint8, end - pos, pos), self._array)
                if found.size:
                    return _walk(starts, changes, pos + size, pos + found)
        if changes and changes[-3] == len(starts):
            del changes[-3:]
        return _walk(starts, changes, pos)

    def _dense(
        self, data: memoryview, pos: int, end: int, starts: list[int], changes: list[int]
    ) -> Walk:
        """Those that were found, and many more."""
        view = np.frombuffer(data, np.uint8, min(end - pos, self._region), pos)
        found = find_candidates(view, self.payloads, self._names, self._mask)
        which = chain(found)
        ends, blocks = found.ends[which], found.blocks[which]
        much = which.size and ends[-1] * 2 > view.size
        self._region = min(self._region * 4, _MOST_REGION) if much else _LEAST_REGION
        named = np.flatnonzero(blocks >= 0)
        lengths = np.array([1 + len(it) for it in self._names], np.int64)
        rows = np.column_stack((named + len(starts), blocks[named], lengths[blocks[named]]))
        last = pos + int(ends[-1]) if which.size else pos
        return _walk(starts, changes, last, found.starts[which] + pos, rows)

    def _step(
        self,
        data: memoryview,
        pos: int,
        end: int,
        starts: list[int],
        changes: list[int],
    ) -> int:
        """Some more of them; returns where the last one ends. This is the loop that costs time."""
        sizes, mask, append = self._sizes, self._mask, starts.append
        for _ in range(_STREAK):
            if pos + 8 >= end:
                break
            flags = _BE64(data, pos)[0] & mask
            size = sizes[flags]
            if not size:
                size = self._odd(data, pos, end, flags, len(starts), changes)
            if not size or pos + size > end:
                break
            append(pos)
            pos += size
        return pos

    def _odd(
        self,
        data: memoryview,
        pos: int,
        end: int,
        flags: int,
        number: int,
        changes: list[int],
    ) -> int:
        """Bytes of a record that names its RAMBlock or says its size; 0: it is not plain."""
        body = pos + 8
        if not flags & _CONTINUE:
            length = data[body]
            spell, name = self._spelled.get(length), body + 1
            body = name + length
            block = self._names.get(spell(data, name)[0]) if spell and body <= end else None
            if block is None:
                return 0
            changes += (number, block, 1 + length)
        payload = self.payloads[flags & ~_CONTINUE]
        if payload < 0:
            payload = self._told(data, body, end, payload)
        return body - pos + payload if payload else 0

    def _told(self, data: memoryview, body: int, end: int, how: int) -> int:
        """Bytes of a payload that says its own size; 0: it does not, or not within bounds."""
        if body + 4 > end:
            return 0
        if how == BY_BE16:
            encoding, size = _BE16(data, body)
            return 3 + size if encoding == 1 and size <= self._mask + 1 else 0
        size = _BE32(data, body)[0]
        return 4 + size if size <= MOST_COMPRESSED_BYTES else 0


def _walk(
    starts: list[int],
    changes: list[int],
    end: int,
    more_starts: NDArray[np.int64] | None = None,
    more_changes: NDArray[np.int64] | None = None,
) -> Walk:
    """What was found one by one, and what was after it."""
    found = Walk(np.array(starts, np.int64), end, np.array(changes, np.int64).reshape(-1, 3))
    if more_starts is not None:
        found = found._replace(starts=np.concatenate((found.starts, more_starts)))
    if more_changes is not None:
        found = found._replace(changes=np.vstack((found.changes, more_changes)))
    return found


def be64(view: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.uint64]:
    """Big-endian numbers at many places."""
    return numbers_at(view, at, ">u8").astype(np.uint64)


def be32(view: NDArray[np.uint8], at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Likewise of four bytes."""
    return numbers_at(view, at, ">u4").astype(np.int64)
