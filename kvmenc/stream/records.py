"""The records of RAM, one call of QEMU's after the other: pages in batches, all else one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from kvmenc.stream.batch import Batch, Found, Kind
from kvmenc.stream.blocktable import read_table
from kvmenc.stream.dialects import CONTEXT_BYTES, DIALECT_FLAGS, Dialects
from kvmenc.stream.events import BlockTable, Flush, PrivateBitmaps
from kvmenc.stream.privatestate import read_bitmap, read_bitmaps, read_cpu_states, read_list
from kvmenc.stream.scan import BY_BE16, BY_BE32, MOST_COMPRESSED_BYTES, Shapes, be32, be64, like
from kvmenc.stream.wire import Encrypted, Ram

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kvmenc.stream.batch import Block
    from kvmenc.stream.dialects import Dialect, Form, Opened, PagePacket
    from kvmenc.stream.events import Event
    from kvmenc.stream.window import Window

__all__ = ["Records"]

#: An IntFlag's complement would lose the bits that have no name.
_CONTINUE = int(Ram.CONTINUE)
_KINDS: dict[int, Kind] = {
    Ram.ZERO: Kind.ZERO,
    Ram.PAGE: Kind.NORMAL,
    Ram.XBZRLE: Kind.XBZRLE,
    Ram.COMPRESS_PAGE: Kind.COMPRESSED,
}


class Records:
    """RAM's records in a stream.

    Args:
        window: the stream.
        page_bytes: bytes in a page.
        dialect: the only one that encrypted records may be of; None: find out.
        extra_bytes: of each row of the block table, beside name and size.

    Attributes:
        blocks: the RAMBlocks; none before their table.
        dialects: of the encrypted records.
        host_page_sizes: as :func:`read_table` takes them.
    """

    def __init__(
        self, window: Window, page_bytes: int, dialect: Dialect | None, extra_bytes: int
    ) -> None:
        self.blocks: tuple[Block, ...] = ()
        self.host_page_sizes = 0
        self.dialects = Dialects(window, page_bytes, dialect)
        self._window, self._page_bytes, self._extra_bytes = window, page_bytes, extra_bytes
        self._mask, self._shift = page_bytes - 1, page_bytes.bit_length() - 1
        self._shapes = Shapes(page_bytes)
        self._npages = self._firsts = np.empty(0, np.int64)
        self._block = -1
        self._in_batch = False
        self._packet: tuple[Form, int] | None = None
        self._kinds = np.full(page_bytes, len(Kind), np.uint8)
        sizes = {Ram.ZERO: 1, Ram.PAGE: page_bytes, Ram.XBZRLE: BY_BE16, Ram.COMPRESS_PAGE: BY_BE32}
        self._sizes = {int(flag): size for flag, size in sizes.items()}

    def call(self) -> Iterator[Event]:
        """What is between the header of a section and its end, which is read as well.

        Raises:
            StreamError: it is no sound RAM section.
        """
        window = self._window
        while True:
            if batch := self._many():
                yield batch
            elif window.end - window.pos < CONTEXT_BYTES and window.fill():
                pass
            elif window.peek(">Q") == (int(Ram.EOS),):
                window.skip(8, "the section's end")
                self._check_batch_over()
                return
            else:
                yield from self._one()

    def _many(self) -> Batch | None:
        """Plain records: a run of like ones, or some that are not; None: there are none."""
        window = self._window
        if window.end - window.pos < 9 or not self.blocks:
            return None
        found = self._run() or self._walk()
        plain = self._plain(found) if found else 0
        return self._batch(found.head(plain)) if found and plain else None

    def _run(self) -> Found | None:
        window = self._window
        flags = int.from_bytes(window.data[window.pos : window.pos + 8], "big") & self._mask
        size = self._shapes.size_of_run(window.data, window.pos)
        if not size or self._block < 0:
            return None
        headers = like(window.data, window.pos, window.end, flags, size - 8, self._mask)
        if headers.size <= 1:
            return None
        starts = window.pos + size * np.arange(headers.size)
        sizes, blocks = np.full(headers.size, size), np.full(headers.size, self._block)
        return Found(headers, starts, starts + 8, sizes, blocks)

    def _walk(self) -> Found | None:
        window = self._window
        starts, end, changes = self._shapes.walk(window.data, window.pos, window.end)
        if not starts.size:
            return None
        at, named, lengths = np.vstack(([(0, self._block, 0)], changes)).T
        blocks = np.repeat(named, np.diff(at, append=starts.size))
        if blocks[0] < 0:
            return None
        bodies, sizes = starts + 8, np.diff(starts, append=end)
        np.add.at(bodies, at, lengths)
        return Found(be64(window.array, starts), starts, bodies, sizes, blocks)

    def _batch(self, found: Found) -> Batch:
        """Records that are whole; the stream goes on behind them."""
        window, flags = self._window, (found.headers & np.uint64(self._mask)).astype(np.int64)
        pages = (found.headers >> np.uint64(self._shift)).astype(np.int64)
        batch = Batch(
            kinds=self._kinds[flags],
            blocks=found.blocks,
            pages=pages,
            ordinals=pages + self._firsts[found.blocks],
            starts=found.starts,
            bodies=found.bodies,
            sizes=found.sizes,
            view=window.array,
            base=window.base,
        )
        self._check(batch)
        self._block = int(found.blocks[-1])
        window.pos = int(found.starts[-1] + found.sizes[-1])
        return batch

    def _plain(self, found: Found) -> int:
        """How many records come before an encrypted one that is not as the last one was."""
        if not self._packet:
            return found.headers.size
        form, hdr_len = self._packet
        flags = found.headers & np.uint64(self._mask & ~_CONTINUE)
        encrypted = np.flatnonzero(flags == np.uint64(form.flag))
        view, at = self._window.array, found.bodies[encrypted]
        alike = np.ones(at.size, np.bool_)
        if form.kinds:
            alike, at = form.is_page(be32(view, at)), at + 4
        alike &= be32(view, at) == hdr_len
        alike &= be32(view, at + 4 + hdr_len) == self._page_bytes
        return found.headers.size if alike.all() else int(encrypted[alike.argmin()])

    def _check(self, batch: Batch) -> None:
        """Pages are in their RAMBlocks, zero records hold zero, batches are whole."""
        beyond = batch.pages >= self._npages[batch.blocks]
        self._refuse(batch, beyond, "a page beyond its RAMBlock's end")
        filled = (batch.kinds == Kind.ZERO) & (batch.view[batch.bodies] != 0)
        self._refuse(batch, filled, "a zero page whose byte is not 0")
        if self._packet and Encrypted.PAGE_BATCH in self._packet[0].kinds:
            self._check_batches(batch)

    def _refuse(self, batch: Batch, wrong: NDArray[np.bool_], what: str) -> None:
        if wrong.any():
            i = int(wrong.argmax())
            name, npages, _ = self.blocks[int(batch.blocks[i])]
            text = f"{what}: {name}, page {int(batch.pages[i]):#x} of {npages:#x}"
            raise self._window.error(text, batch.base + int(batch.starts[i]))

    def _check_batches(self, batch: Batch) -> None:
        """A page of a batch is followed by another one of it, until the last, of the same block."""
        encrypted = np.flatnonzero(batch.kinds == Kind.ENCRYPTED)
        kind = np.zeros(batch.kinds.size, np.int64)
        kind[encrypted] = be32(batch.view, batch.bodies[encrypted])
        more = kind == Encrypted.PAGE_BATCH
        inside = more | (kind == Encrypted.PAGE_BATCH_END)
        inside &= batch.bodies == batch.starts + 8
        expected = np.concatenate(([self._in_batch], more[:-1]))
        self._refuse(batch, expected & ~inside, "another record within a batch of encrypted pages")
        self._in_batch = bool(more[-1])

    def _check_batch_over(self) -> None:
        if self._in_batch:
            raise self._window.error("a batch of encrypted pages without its last one")

    def _one(self) -> Iterator[Event]:
        """One record of any kind, read with care."""
        window = self._window
        window.ensure(CONTEXT_BYTES)
        start, offset = window.pos, window.offset
        header = window.u64("a record's header")
        flags = header & self._mask
        if flags & DIALECT_FLAGS:
            yield from self._of_dialect(header, start, offset)
        elif flags == Ram.MEM_SIZE:
            yield self._table(header - flags)
        elif flags & ~_CONTINUE in _KINDS:
            block = self._block_of(flags)
            body = window.pos
            window.skip(self._payload(flags & ~_CONTINUE), "a page's record")
            yield self._single(start, body, block, window.pos)
        else:
            known = "a page, the block table or the section's end"
            raise window.error(f"expected {known}, got a header {header:#x}", offset)

    def _payload(self, flag: int) -> int:
        """Bytes after header and name, where these are not said before they are read."""
        window = self._window
        if flag == Ram.XBZRLE:
            if (kind := window.u8("an encoding")) != 1:
                raise window.error(f"expected xbzrle's encoding, which is 1, got {kind}")
            size, most = window.u16("an xbzrle record's size"), self._page_bytes
        elif flag == Ram.COMPRESS_PAGE:
            size, most = window.u32("a compressed record's size"), MOST_COMPRESSED_BYTES
        else:
            return self._shapes.payloads[flag]
        if size > most:
            raise window.error(f"expected an encoded page of at most {most} bytes, got {size}")
        return size

    def _of_dialect(self, header: int, start: int, offset: int) -> Iterator[Event]:
        opened = self.dialects.open(header, self._block_of)
        if opened.packet:
            yield from self._encrypted(opened.form, opened.packet, start)
            return
        self._check_batch_over()
        self._block = opened.block if opened.block >= 0 else self._block
        yield self._state(opened, offset)

    def _state(self, opened: Opened, offset: int) -> Event:
        window, ram_pages = self._window, int(self._npages.sum())
        if opened.what == "flush":
            return Flush()
        if opened.what == "cpu":
            return read_cpu_states(window, offset)
        if opened.form.state == "list":
            return read_list(window, offset)
        if opened.form.kinds:
            return read_bitmaps(window, ram_pages, offset)
        return PrivateBitmaps([read_bitmap(window, ram_pages)], window.offset - offset)

    def _encrypted(self, form: Form, packet: PagePacket, start: int) -> Iterator[Event]:
        """A page that was read; those that follow are plain if they are like it."""
        end = self._window.pos
        self._packet = form, packet.hdr_len
        payload = 4 * bool(form.kinds) + 4 + packet.hdr_len + 4 + self._page_bytes
        self._learn(form.flag, Kind.ENCRYPTED, payload)
        session_bytes = packet.session.size_bytes if packet.session else 0
        batch = self._single(start, end - payload - session_bytes, packet.block, end)
        if packet.session:
            yield packet.session
        yield batch

    def _single(self, start: int, body: int, block: int, end: int) -> Batch:
        starts, bodies, sizes, blocks = np.array([[start], [body], [end - start], [block]])
        return self._batch(Found(be64(self._window.array, starts), starts, bodies, sizes, blocks))

    def _learn(self, flag: int, kind: Kind, payload: int) -> None:
        """From now on records with this flag are plain."""
        self._shapes.learn(flag, payload)
        self._kinds[flag] = self._kinds[flag | _CONTINUE] = kind

    def _block_of(self, flags: int) -> int:
        """The number of the RAMBlock that a record is of: it names it, or it stays the same."""
        window = self._window
        if flags & _CONTINUE:
            if self._block < 0:
                raise window.error("expected a RAMBlock's name before the first page")
            return self._block
        at = window.offset
        name = window.take(window.u8("a name's length"), "a RAMBlock's name")
        block = self._shapes.named(name)
        if block is None:
            raise window.error(f"expected a RAMBlock of the stream's table, got {name!r}", at)
        return block

    def _table(self, total_bytes: int) -> BlockTable:
        if self.blocks:
            raise self._window.error("a second table of RAMBlocks")
        widths = self._page_bytes, self._extra_bytes, self.host_page_sizes
        self.blocks = read_table(self._window, total_bytes, *widths)
        self._shapes = Shapes(self._page_bytes, [it.name.encode() for it in self.blocks])
        for flag, size in self._sizes.items():
            self._learn(flag, _KINDS[flag], size)
        self._npages = np.array([it.npages for it in self.blocks], np.int64)
        self._firsts = np.array([it.first for it in self.blocks], np.int64)
        return BlockTable(self.blocks)
