"""Pages sent as the difference to what was sent before: QEMU 7.2, migration/xbzrle.c."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.errors import StreamError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["patch"]


def patch(page: NDArray[np.uint8], encoded: bytes) -> None:
    """Make a page what it is now: runs of bytes that stay, and of bytes that are new, in turn.

    Raises:
        StreamError: a run is cut off, empty, or reaches beyond the page.
    """
    at = done = 0
    while at < len(encoded):
        same, at = _length(encoded, at)
        new, begin = _length(encoded, at)
        if not new or (done and not same):
            raise StreamError(f"xbzrle: an empty run at byte {at}")
        done, at = done + same, begin + new
        if at > len(encoded) or done + new > page.size:
            raise StreamError(f"xbzrle: a run of {new} bytes at byte {begin} is too long")
        page[done : done + new] = memoryview(encoded)[begin:at]
        done += new


def _length(encoded: bytes, at: int) -> tuple[int, int]:
    """One or two bytes, seven bits each, the low ones first; and where they end."""
    low = encoded[at : at + 2]
    if not low or (low[0] & 0x80 and (len(low) < 2 or low[1] & 0x80)):
        raise StreamError(f"xbzrle: no length at byte {at}")
    if not low[0] & 0x80:
        return low[0], at + 1
    return low[0] & 0x7F | low[1] << 7, at + 2
