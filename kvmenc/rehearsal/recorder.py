"""What went over the line, as a migration stream that ``kvmenc stream`` reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc.memory.words import copy_bits, zeros
from kvmenc.stream.privatestate import PrivateRange
from kvmenc.stream.writer import SessionData, StreamBlock, StreamWriter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import BinaryIO

    from kvmenc.firmware import SendSession
    from kvmenc.memory.layout import Layout
    from kvmenc.memory.maps import PrivateMap
    from kvmenc.rehearsal.records import PagesRecord

__all__ = ["Recorder"]


class Recorder:
    """A ``Listener`` that writes a stream; one that is broken off ends where it was.

    Args:
        file: takes it.
        layout: the guest's.
        session: that it is sent in.
        pdh: the certificate of the sending platform.
    """

    def __init__(self, file: BinaryIO, layout: Layout, session: SendSession, pdh: bytes) -> None:
        self._layout = layout
        blocks = [StreamBlock(block.name, block.npages) for block in layout.blocks]
        told = SessionData(session.policy, pdh, session.session)
        self._writer = StreamWriter(file, blocks, told)

    def round_begins(self, *, stopped: bool) -> None:
        """What follows is sent after another sync."""
        self._writer.begin_round(stopped=stopped)

    def hear(self, record: PagesRecord) -> None:
        """A record that arrived."""
        name = self._layout.blocks[record.block].name
        self._writer.zero_pages(name, record.zero)
        self._writer.normal_pages(name, record.normal, record.contents)
        if record.encrypted.size:
            packets = record.headers, record.transports
            self._writer.encrypted_pages(name, record.encrypted, *packets)

    def switched(self, private: Mapping[str, PrivateMap]) -> None:
        """All has arrived."""
        self._writer.private_map(self._ranges(private))
        self._writer.end()

    def _ranges(self, private: Mapping[str, PrivateMap]) -> Iterator[PrivateRange]:
        for slot in self._layout.slots:
            words = zeros(slot.npages)
            for it in self._layout.pieces_of(slot):
                state = private[it.block.name].words
                copy_bits(words, it.slot_page, state, it.block_page, it.npages)
            yield PrivateRange(slot.base_gfn, slot.npages, words)
