"""Encrypted records: five dialects, some of which use one number for different things.

=========  ======================================  =====  =====  ==================================
dialect    whose                                    0x200  0x400  private state at the end
=========  ======================================  =====  =====  ==================================
``qemu``   mainline, since 8.1                      flush  -      none: nothing is encrypted
``v2``     qemu-devel 2019-07-10                    page   state  a bitmap for each memslot
``v3``     qemu-devel 2019-08-06                    kind   -      bitmaps of gfns
``v4``     qemu-devel 2021-08-04                    kind   -      a list of shared gfns
``csv``    openEuler 8.2, Hygon's vendor batch      flush  kind   a list of shared gfns
=========  ======================================  =====  =====  ==================================

A `kind` is a be32 after the header: page, private state, page of a batch and so on. Sources:
codomania/qemu, branches sev-migration-v2 and -v3; AMDESE/qemu, branch sev_live_migration_v4_1;
openeuler-mirror/qemu, branch qemu-8.2.0; of each migration/ram.c and target/i386/sev.c. A page::

    v2          header, [session], be32 hdr_len, hdr, be32 trans_len, trans
    others      header, be32 kind, [session], be32 hdr_len, hdr, be32 trans_len, trans
    session     be32 policy, be32 pdh_len, pdh, be32 session_len, session: in the first page only

No record says whose it is. What it must be is known where only one dialect explains the record to
its last byte; where more do, and they differ, the reader refuses, and wants to be told.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kvmenc.errors import StreamError
from kvmenc.stream.events import Session
from kvmenc.stream.wire import Encrypted, Ram

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from kvmenc.stream.window import Window

__all__ = [
    "CONTEXT_BYTES",
    "DIALECT_FLAGS",
    "FORMS",
    "Dialect",
    "Dialects",
    "Form",
    "Opened",
    "PagePacket",
]

DIALECT_FLAGS = 0x600
_FLAG_200, _FLAG_400 = 0x200, 0x400
#: More than the longest record of a page: a name, three numbers, four blobs.
CONTEXT_BYTES = 1 << 17


class Dialect(StrEnum):
    """Whose encrypted records a stream has."""

    QEMU = "qemu"
    V2 = "v2"
    V3 = "v3"
    V4 = "v4"
    CSV = "csv"


class Form(NamedTuple):
    """How a dialect writes.

    Attributes:
        flag: marks an encrypted record; 0: there are none.
        kinds: what the be32 after the header may be; empty: there is none, and all are pages.
        flushes: 0x200 alone is multifd's.
        state: of what form the private state is.
    """

    flag: int
    kinds: frozenset[int]
    flushes: bool
    state: str

    def is_page(self, kinds: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these kinds are pages, alone or of a batch."""
        return np.isin(kinds, list(self.kinds & _PAGES))


_KINDS = frozenset({Encrypted.PAGE, Encrypted.PRIVATE_STATE})
_BATCHED = frozenset({Encrypted.PAGE_BATCH, Encrypted.PAGE_BATCH_END})
_PAGES = _BATCHED | {Encrypted.PAGE}
FORMS = {
    Dialect.QEMU: Form(0, frozenset(), flushes=True, state=""),
    Dialect.V2: Form(_FLAG_200, frozenset(), flushes=False, state="bitmap"),
    Dialect.V3: Form(_FLAG_200, _KINDS, flushes=False, state="bitmaps"),
    Dialect.V4: Form(_FLAG_200, _KINDS, flushes=False, state="list"),
    Dialect.CSV: Form(
        _FLAG_400, _KINDS | _BATCHED | {Encrypted.CPU_STATE}, flushes=True, state="list"
    ),
}


class PagePacket(NamedTuple):
    """An encrypted page that was read.

    Attributes:
        block: number of its RAMBlock.
        kind: a page, or one of a batch.
        session: in it, if any.
        hdr_len: bytes of its header.
    """

    block: int
    kind: int
    session: Session | None
    hdr_len: int


class Opened(NamedTuple):
    """A record whose header was read, and of a page all of it.

    Attributes:
        what: ``flush``, ``page``, ``state`` or ``cpu``.
        form: by which it was read.
        packet: of a page.
        block: number of the RAMBlock that the header names.
    """

    what: str
    form: Form
    packet: PagePacket | None = None
    block: int = -1


class Dialects:
    """Which dialects a stream may be in: at first all, unless it is told.

    Args:
        window: the stream.
        page_bytes: bytes in a page.
        named: the only one that it may be.

    Attributes:
        left: those that explain all records so far.
    """

    def __init__(self, window: Window, page_bytes: int, named: Dialect | None) -> None:
        self.left = {named} if named else set(Dialect)
        self._window, self._page_bytes = window, page_bytes
        self._session_seen = False

    def open(self, header: int, block_of: Callable[[int], int]) -> Opened:
        """Read on after a header that has one of DIALECT_FLAGS.

        Args:
            header: offset and flags.
            block_of: reads a RAMBlock's name, unless the flags say that it stays the same.

        Raises:
            StreamError: no dialect explains the record, or more than one that differ.
        """
        if len(self.left) > 1:
            self.left = self._explaining(header, block_of)
        opened = self._open(FORMS[min(self.left)], header, block_of)
        self._session_seen |= opened.packet is not None
        return opened

    def _explaining(self, header: int, block_of: Callable[[int], int]) -> set[Dialect]:
        """Those dialects that can be of this record; all must read it alike."""
        window, mark = self._window, self._window.pos
        found: dict[Dialect, Opened] = {}
        for dialect in sorted(self.left):
            try:
                found[dialect] = self._open(FORMS[dialect], header, block_of)
            except StreamError:
                pass
            finally:
                window.pos = mark
        names = " or ".join(found)
        at = window.offset - 8
        if not found:
            known = ", ".join(sorted(self.left))
            text = f"no dialect ({known}) explains the rest of the record with header {header:#x}"
            raise window.error(text, at)
        # Of an empty private state, both forms are the same four bytes.
        if len({(it.what, it.packet) for it in found.values()}) > 1:
            text = f"the record with header {header:#x} can be of {names}: name it by --dialect"
            raise window.error(text, at)
        return set(found)

    def _open(self, form: Form, header: int, block_of: Callable[[int], int]) -> Opened:
        window = self._window
        if form.flushes and header == _FLAG_200:
            _check_header_follows(window)
            return Opened("flush", form)
        if form.state == "bitmap" and header == _FLAG_400:
            _check_bitmap(window)
            return Opened("state", form)
        flags = header & (self._page_bytes - 1) & ~int(Ram.CONTINUE)
        if flags != form.flag:
            raise window.error(f"a record's flags {flags:#x} are of another dialect, or of none")
        block = block_of(header)
        kind = window.u32("an encrypted record's kind") if form.kinds else int(Encrypted.PAGE)
        if form.kinds and kind not in form.kinds:
            raise window.error(f"expected an encrypted record's kind, got {kind:#x}")
        if kind == Encrypted.CPU_STATE:
            return Opened("cpu", form, block=block)
        if kind == Encrypted.PRIVATE_STATE:
            (_check_list if form.state == "list" else _check_bitmaps)(window)
            return Opened("state", form, block=block)
        return Opened("page", form, self._packet(block, kind), block)

    def _packet(self, block: int, kind: int) -> PagePacket:
        window = self._window
        session = None if self._session_seen else _session(window, block)
        hdr_len = window.blob("a packet's header")
        trans_len = window.u32("the length of an encrypted page")
        if trans_len != self._page_bytes:
            text = f"expected an encrypted page of {self._page_bytes} bytes, got {trans_len}"
            raise window.error(text)
        window.skip(trans_len, "an encrypted page")
        return PagePacket(block, kind, session, hdr_len)


def _check_header_follows(window: Window) -> None:
    """And no RAMBlock's name, whose length would be the first byte of a huge offset."""
    following = window.peek("B")
    if following is None or following[0]:
        raise window.error("expected another record after 0x200")


def _session(window: Window, block: int) -> Session:
    policy = window.u32("the guest's policy")
    pdh = window.blob("the platform's certificate")
    session = window.blob("the session data")
    return Session(policy, pdh, session, 12 + pdh + session, block)


def _check_bitmap(window: Window, skip: str = "") -> None:
    """A bitmap's head makes sense: where, how many pages, how many bytes they take."""
    numbers = window.peek(f">{skip}QQQ")
    if numbers is None:
        raise window.error("expected a bitmap of private pages, and the file ends")
    base_gpa, npages, size_bytes = numbers
    if base_gpa % 4096 or not npages or size_bytes != (npages + 63) // 64 * 8:
        text = f"expected {size_bytes} bytes of bitmap to hold {npages} pages from {base_gpa:#x}"
        raise window.error(f"{text}, 64 pages in 8 bytes")


def _check_bitmaps(window: Window) -> None:
    if _status(window) == 1:
        _check_bitmap(window, "4x")


def _check_list(window: Window) -> None:
    if _status(window) == 2:
        return
    numbers = window.peek(">4xIII")
    if numbers is None or numbers[0] >= numbers[1] or numbers[2] not in {1, 2}:
        raise window.error("expected a range of shared gfns, its end after its start")


def _status(window: Window) -> int:
    """Whether an item of the private state follows (1), or its end (2)."""
    numbers = window.peek(">I")
    if numbers is None or numbers[0] not in {1, 2}:
        raise window.error(f"expected an item of the private state or its end, got {numbers}")
    return numbers[0]
