"""The C library's heap, in processes that make and forget a record of a mebibyte at a time."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

# glibc 2.36, malloc/malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_BYTES, _LARGEST_BYTES = 256 << 20, 32 << 20


def keep_freed_memory() -> None:
    """Let the heap keep what is freed, for the next record.

    By default a buffer of this size goes back to the kernel at once, and the next one is new pages
    that the kernel has to zero: a tenth of what a page costs a destination. For this process, from
    now on; nothing happens where the C library is not glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BYTES)
