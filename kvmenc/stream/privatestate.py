"""Which gfns are private, as a stream says it at its end: as bitmaps or as a list of ranges."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.memory.words import mask_tail
from kvmenc.stream.events import CpuStates, PrivateBitmaps, SharedList
from kvmenc.stream.wire import BitmapStatus

if TYPE_CHECKING:
    from kvmenc.memory.words import Words
    from kvmenc.stream.window import Window

__all__ = [
    "MAX_RANGES",
    "PrivateRange",
    "read_bitmap",
    "read_bitmaps",
    "read_cpu_states",
    "read_list",
]

#: Of shared gfns. A booted Linux has a few thousand.
MAX_RANGES = 1 << 20
#: A slot may show the same RAM a second time, and there is some that is no RAMBlock of the stream.
_SLACK_PAGES = 1 << 16
_LOT_BYTES = 1 << 20


class PrivateRange(NamedTuple):
    """Private/shared of a run of gfns.

    Attributes:
        base_gfn: the first one.
        npages: how many.
        words: ``words_for(npages)`` words, 1 = private; bits past the last page are 0.
    """

    base_gfn: int
    npages: int
    words: Words


def read_bitmap(window: Window, ram_pages: int) -> PrivateRange:
    """A bitmap after its status, of no more pages than twice the RAM has.

    Bits past the last page are dropped: kernels of the time left ones there, or what was in the
    buffer.
    """
    base_gpa, npages = window.u64("a bitmap's first address"), window.u64("a bitmap's pages")
    size_bytes = window.u64("a bitmap's size")
    most = 2 * ram_pages + _SLACK_PAGES
    if npages > most or size_bytes != (npages + 63) // 64 * 8:
        raise window.error(f"expected a bitmap of at most {most} pages, got {npages}")
    lots = [_LOT_BYTES] * (size_bytes // _LOT_BYTES) + [size_bytes % _LOT_BYTES]
    raw = b"".join([window.take(lot, "a bitmap of private pages") for lot in lots])
    words = np.frombuffer(raw, "<u8").astype(np.uint64)
    mask_tail(words, npages)
    return PrivateRange(base_gpa // 4096, npages, words)


def read_bitmaps(window: Window, ram_pages: int, start: int) -> PrivateBitmaps:
    """Bitmaps, each after a status, until the status says that there are no more."""
    ranges: list[PrivateRange] = []
    while (status := window.u32("the private state's status")) == BitmapStatus.CONTINUE:
        left = ram_pages - sum(it.npages for it in ranges) // 2
        ranges.append(read_bitmap(window, left))
    _check_end(window, status)
    return PrivateBitmaps(ranges, window.offset - start)


def read_list(window: Window, start: int) -> SharedList:
    """Ranges of shared gfns, each after a status, likewise."""
    numbers = array("q")
    while (status := window.u32("the private state's status")) == BitmapStatus.CONTINUE:
        first, end = window.u32("a shared range's start"), window.u32("a shared range's end")
        if first >= end or len(numbers) == 2 * MAX_RANGES:
            text = f"expected a range of shared gfns, at most {MAX_RANGES}, got {first} to {end}"
            raise window.error(text)
        numbers.extend((first, end))
    _check_end(window, status)
    pairs = np.frombuffer(numbers, np.int64) if numbers else np.empty(0, np.int64)
    return SharedList(pairs[0::2], pairs[1::2], window.offset - start)


def read_cpu_states(window: Window, start: int) -> CpuStates:
    """Encrypted registers: a vCPU's number, a header and contents, each after its length."""
    vcpus = 0
    while (status := window.u32("the vCPUs' status")) == BitmapStatus.CONTINUE:
        for what in ("a vCPU's number", "a vCPU's header", "a vCPU's registers"):
            window.blob(what)
        vcpus += 1
    _check_end(window, status)
    return CpuStates(vcpus, window.offset - start)


def _check_end(window: Window, status: int) -> None:
    if status != BitmapStatus.END:
        raise window.error(f"expected another item (1) or the end (2), got {status:#x}")
