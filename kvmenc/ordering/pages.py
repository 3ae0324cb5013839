"""One page in the model, for guest, kernel, host and destination at once; and what steps do to it.

A page holds bytes under a key. ``power`` says how often its bytes are encrypted with the guest's
key: 1 as the guest writes a private page, 0 a shared one; a page converted without care can be at
-1 or 2, and stays honest garbage. The guest reads it through its page table: at the power that this
says, or garbage.

Written bytes have no value here. Each write makes bytes that nothing else holds, so all that can
matter is whether a copy is still of the bytes that the page has now; and a copy that is not is as
good as none. That merges all states that differ in values only, and no outcome is lost by it.

A state of a page is a number of ``PAGE_BITS`` bits; every step is a table from states to states, so
that the explorer takes a million at once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    States = NDArray[np.uint64]
    Bits = NDArray[np.int8]

__all__ = ["BIT", "PAGE_BITS", "PLAIN_BITS", "Act", "Page", "pack", "start", "table", "unpack"]


class Act(StrEnum):
    """What is done to one page, at once."""

    NOTHING = "nothing"
    # by the guest
    WRITE = "write"
    CONVERT = "convert in place"  # read through the page table, write under the other key
    FLIP = "flip"  # the page table
    ANNOUNCE = "announce"  # the hypercall
    RESET = "reset"  # reboot: no page table, and the VMM resets the kernel's state
    # by the host
    GET_DIRTY = "get dirty"
    GET_AND_CLEAR = "get dirty, which clears"
    CLEAR = "clear"
    GET_PRIVATE = "get private"
    SEND = "send"  # read and send, if dirty, by the road that the host believes in
    LEAVE = "leave"  # a round that is cut short leaves it to the next
    SEND_XBZRLE = "send, xbzrle"  # a shared page as the difference to what was sent before
    SEND_XBZRLE_KEPT = "send, xbzrle, nothing evicted"
    FORGET_PRIVATE = "forget got_private"
    FORGET_DIRTY = "forget got_dirty"


@dataclass(slots=True)
class Page:
    """States of a page, taken apart: one array element each.

    Attributes:
        table_private: the guest's page table says private.
        kernel_private: the kernel was told private.
        kernel_dirty: the kernel's log has it.
        power: how often the bytes are encrypted.
        lost: converted by announcement or page table, and not written since.
        dirty: the host's bit.
        private: the host's bit.
        got_dirty: read in the sync that goes on.
        got_private: likewise.
        stale: the destination has no bytes, or others than the page has now.
        sent_power: how often those bytes were encrypted when they were read.
        by_firmware: they went the encrypted road.
        cached: xbzrle's cache has bytes of it.
        cache_stale: others than the page has now.
        cache_power: how often those were encrypted.
        cache_held: the destination has just what the cache has.
    """

    table_private: Bits
    kernel_private: Bits
    kernel_dirty: Bits
    power: Bits
    lost: Bits
    dirty: Bits
    private: Bits
    got_dirty: Bits
    got_private: Bits
    stale: Bits
    sent_power: Bits
    by_firmware: Bits
    cached: Bits
    cache_stale: Bits
    cache_power: Bits
    cache_held: Bits


_POWERS = {"power", "sent_power", "cache_power"}
_WIDTHS = tuple((it.name, 2 if it.name in _POWERS else 1) for it in fields(Page))
PAGE_BITS = sum(width for _, width in _WIDTHS)
#: Where the bits of the host's own bitmaps, and of what it read, lie in a state.
BIT = {
    name: sum(width for _, width in _WIDTHS[:at])
    for at, (name, width) in enumerate(_WIDTHS)
    if width == 1
}
#: Those of a migration without xbzrle: its cache comes last.
PLAIN_BITS = PAGE_BITS - 5


def unpack(states: States) -> Page:
    """Take states apart."""
    values, shift = {}, 0
    for name, width in _WIDTHS:
        bits = (states >> np.uint64(shift) & np.uint64((1 << width) - 1)).astype(np.int8)
        values[name] = (bits + 1) % 4 - 1 if name in _POWERS else bits
        shift += width
    return Page(**values)


def pack(page: Page) -> States:
    """Put states together."""
    states, shift = np.zeros(page.power.shape, np.uint64), 0
    for name, width in _WIDTHS:
        bits = getattr(page, name).astype(np.uint64) & np.uint64((1 << width) - 1)
        states |= bits << np.uint64(shift)
        shift += width
    return states


def start(*, private: bool) -> int:
    """A page before a migration: written under its key, nothing sent, the host's bit dirty.

    It is in the kernel's log too, as after KVM_DIRTY_LOG_INITIALLY_SET: the harder case, since to
    clear it may take a later write with it.
    """
    page = unpack(np.zeros(1, np.uint64))
    page.table_private[:] = page.kernel_private[:] = page.power[:] = private
    page.private[:] = page.dirty[:] = page.kernel_dirty[:] = page.stale[:] = 1
    return int(pack(page)[0])


def _write(page: Page) -> None:
    page.power = page.table_private.copy()
    page.lost[:] = 0
    page.kernel_dirty[:] = page.stale[:] = page.cache_stale[:] = 1


def _convert(page: Page) -> None:
    """Bytes that were whole stay whole; the page table does not fit them until it flips."""
    page.lost = (page.power != page.table_private).astype(np.int8)
    page.power = page.power + 1 - 2 * page.table_private
    page.kernel_dirty[:] = 1


def _flip(page: Page) -> None:
    page.table_private ^= 1
    page.lost |= page.power != page.table_private


def _announce(page: Page) -> None:
    page.kernel_private ^= 1
    page.lost |= page.power != page.kernel_private


def _reset(page: Page) -> None:
    page.table_private[:] = page.kernel_private[:] = 1
    page.lost |= page.power != 1


def _get_dirty(page: Page) -> None:
    page.got_dirty = page.kernel_dirty.copy()


def _get_and_clear(page: Page) -> None:
    page.got_dirty, page.kernel_dirty = page.kernel_dirty, np.zeros_like(page.kernel_dirty)


def _clear(page: Page) -> None:
    page.kernel_dirty &= 1 - page.got_dirty


def _get_private(page: Page) -> None:
    page.got_private = page.kernel_private.copy()


def _send(page: Page) -> None:
    """All of it, as it is now."""
    sends = page.dirty == 1
    page.stale[sends] = 0
    page.sent_power[sends] = page.power[sends]
    page.by_firmware[sends] = page.private[sends]
    page.dirty[:] = 0


def _send_xbzrle(page: Page, *, evicts: bool = True) -> None:
    """QEMU's save_xbzrle_page (v7.2, migration/ram.c), and what the destination makes of it.

    The cache then has the bytes as they are now; equal bytes are not sent at all, others as a
    difference, which is garbage at a destination that holds something else than the cache did.
    """
    sends, raw = page.dirty == 1, (page.dirty & (1 - page.private)) == 1
    known = raw & (page.cached == 1)
    same = known & (page.cache_stale == 0) & (page.cache_power == page.power)
    garbage = known & ~same & (page.cache_held == 0)
    whole = sends & ~same & ~garbage
    page.stale[whole], page.stale[garbage] = 0, 1
    page.sent_power[whole], page.by_firmware[whole] = page.power[whole], page.private[whole]
    page.cache_held[raw & ~same] = (~garbage)[raw & ~same]
    page.cached[raw], page.cache_stale[raw], page.cache_power[raw] = 1, 0, page.power[raw]
    encrypted = sends & ~raw
    page.cache_held[encrypted] = 0
    if evicts:
        page.cached[encrypted] = 0
    page.dirty[:] = 0


def _forget_private(page: Page) -> None:
    page.got_private[:] = 0


def _forget_dirty(page: Page) -> None:
    page.got_dirty[:] = 0


def _nothing(_page: Page) -> None:
    pass


_ACTS: dict[Act, Callable[[Page], None]] = {
    Act.NOTHING: _nothing,
    Act.WRITE: _write,
    Act.CONVERT: _convert,
    Act.FLIP: _flip,
    Act.ANNOUNCE: _announce,
    Act.RESET: _reset,
    Act.GET_DIRTY: _get_dirty,
    Act.GET_AND_CLEAR: _get_and_clear,
    Act.CLEAR: _clear,
    Act.GET_PRIVATE: _get_private,
    Act.SEND: _send,
    Act.LEAVE: _nothing,
    Act.SEND_XBZRLE: _send_xbzrle,
    Act.SEND_XBZRLE_KEPT: lambda page: _send_xbzrle(page, evicts=False),
    Act.FORGET_PRIVATE: _forget_private,
    Act.FORGET_DIRTY: _forget_dirty,
}


def _forget_what_cannot_matter(page: Page) -> None:
    """So that states which differ in nothing else are one."""
    gone = page.stale == 1
    page.sent_power[gone] = page.by_firmware[gone] = 0
    empty = page.cached == 0
    page.cache_stale[empty] = page.cache_power[empty] = page.cache_held[empty] = 0


@cache
def table(acts: tuple[Act, ...], *, xbzrle: bool = False) -> NDArray[np.uint32]:
    """State of a page -> its state when these acts were done to it at once."""
    page = unpack(np.arange(1 << (PAGE_BITS if xbzrle else PLAIN_BITS), dtype=np.uint64))
    for act in acts:
        _ACTS[act](page)
    _forget_what_cannot_matter(page)
    return pack(page).astype(np.uint32)
