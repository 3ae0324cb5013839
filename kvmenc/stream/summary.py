"""A stream read to its end, and told: pages by road, by RAMBlock, round and page; bytes by kind."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import StreamError
from kvmenc.memory.words import count
from kvmenc.stream.against import Against
from kvmenc.stream.batch import Batch, Kind
from kvmenc.stream.events import (
    BlockTable,
    Call,
    CallEnd,
    CpuStates,
    Device,
    End,
    Flush,
    PrivateBitmaps,
    Session,
    SharedList,
)
from kvmenc.stream.history import Histories
from kvmenc.stream.passes import Passes
from kvmenc.stream.reader import StreamReader
from kvmenc.stream.result import (
    BlockTotals,
    BytesByKind,
    DeviceTotals,
    PagesByKind,
    PrivateStateReport,
    SendingCount,
    SessionReport,
    StreamReport,
)
from kvmenc.stream.rounds import Marks, Rounds, counts_of
from kvmenc.stream.window import printable
from kvmenc.stream.wire import Section

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from kvmenc.capture import CaptureFile
    from kvmenc.stream.dialects import Dialect
    from kvmenc.stream.events import Event
    from kvmenc.stream.history import WatchedPage

__all__ = ["MOST_DEVICES", "summarize"]

MOST_DEVICES = 10_000


def summarize(
    path: str | os.PathLike[str],
    *,
    dialect: Dialect | None = None,
    pages: Sequence[WatchedPage] = (),
    against: CaptureFile | None = None,
    against_name: str = "",
    progress: Callable[[int], None] = lambda _: None,
) -> StreamReport:
    """Read a stream, and tell what is in it.

    Memory: the reader's buffer, 4 bytes for each page of RAM, and one more for ``against``.

    Args:
        path: the file.
        dialect: of its encrypted records; None: whichever explains them.
        pages: whose history is wanted.
        against: a capture with private maps.
        against_name: of its file.
        progress: is called with the bytes read so far.

    Raises:
        StreamError: it cannot be read, or is damaged; names the file, the offset, and what was
            expected there.
        InputError: a page that the stream does not have, or a capture that does not fit it.
    """
    name = printable(str(path))
    try:
        file = Path(path).open("rb", buffering=0)  # noqa: SIM115 - closed below
    except OSError as error:
        raise StreamError(f"{name}: cannot be read: {error.strerror}") from error
    with file:
        try:
            reader = StreamReader(file, name, dialect)
        except OSError as error:  # what can be opened need not have a length
            raise StreamError(f"{name}: cannot be read: {error.strerror}") from error
        summary = _Summary(reader, name, pages, (against, against_name))
        for event in reader:
            summary.add(event)
            progress(reader.offset)
    return summary.told()


class _Summary:
    """What has been read so far."""

    def __init__(
        self,
        reader: StreamReader,
        name: str,
        pages: Sequence[WatchedPage],
        against: tuple[CaptureFile | None, str],
    ) -> None:
        self._reader, self._name, self._wanted = reader, name, pages
        self._capture, self._capture_name = against
        self._marks = Marks(0)
        self._rounds = Rounds((), self._marks)
        self._histories = Histories((), (), reader.page_bytes)
        self._against: Against | None = None
        self._passes = Passes()
        self._bytes = dict.fromkeys(("session", "private_state", "cpu_states"), 0)
        self._session: SessionReport | None = None
        self._private: PrivateStateReport | None = None
        self._vcpus = self._flushes = 0
        self._devices: list[DeviceTotals] = []
        self._device_bytes = 0
        self._end = End(0, 0, "")

    def add(self, event: Event) -> None:
        if isinstance(event, Batch):
            self._batch(event)
        elif isinstance(event, Call | CallEnd):
            self._call(event)
        elif isinstance(event, BlockTable):
            self._table(event)
        elif isinstance(event, Device):
            self._device(event)
        elif isinstance(event, End):
            self._end = event
            self._rounds.end()
        else:
            self._rare(event)

    def _batch(self, batch: Batch) -> None:
        self._rounds.add(batch)
        self._passes.add(batch)
        self._histories.add(batch, self._rounds.call)
        if self._against:
            self._against.add(batch)

    def _call(self, event: Call | CallEnd) -> None:
        """The one that sets up sends no page, and is none of a round's."""
        if isinstance(event, Call) and event.section != Section.START:
            self._rounds.begin_call(stopped=event.section == Section.END)
        elif isinstance(event, CallEnd) and self._rounds.call:
            self._rounds.end_call()
            self._passes.end_call()

    def _table(self, table: BlockTable) -> None:
        self._marks = Marks(sum(it.npages for it in table.blocks))
        self._rounds = Rounds(table.blocks, self._marks)
        self._histories = Histories(table.blocks, self._wanted, self._reader.page_bytes)
        if self._capture:
            self._against = Against(self._capture, self._capture_name, table.blocks)

    def _device(self, it: Device) -> None:
        self._device_bytes += it.size_bytes
        if len(self._devices) < MOST_DEVICES:
            name = printable(it.name)
            self._devices.append(DeviceTotals(name, it.instance_id, it.size_bytes))

    def _rare(self, event: Session | PrivateBitmaps | SharedList | CpuStates | Flush) -> None:
        """What stands in a stream once, or never."""
        if isinstance(event, Session):
            self._rounds.without_session(event.block, event.size_bytes)
            self._bytes["session"] = event.size_bytes
            self._session = SessionReport(event.policy, event.pdh_bytes, event.session_bytes)
        elif isinstance(event, Flush):
            self._flushes += 1
        elif isinstance(event, CpuStates):
            self._vcpus += event.vcpus
            self._bytes["cpu_states"] += event.size_bytes
        else:
            self._bytes["private_state"] += event.size_bytes
            self._private = _private_state(event, self._private)

    def told(self) -> StreamReport:
        blocks, rounds = self._reader.blocks, self._rounds
        histograms = [self._marks.histogram(it) for it in blocks]
        return StreamReport(
            source=self._name,
            machine=printable(self._reader.configuration.machine),
            page_size=self._reader.page_bytes,
            dialects=[str(it) for it in self._reader.dialects],
            bytes_total=self._reader.offset,
            why_unread=self._end.why,
            ram_bytes=sum(it.npages for it in blocks) * self._reader.page_bytes,
            blocks=self._blocks(histograms),
            pages=_by_kind(rounds.pages.sum(axis=0)),
            bytes=self._all_bytes(),
            # A background snapshot goes over RAM once, with pages between that the guest writes.
            passes=self._passes.count if rounds.stopped else min(1, rounds.call),
            rounds=rounds.rounds,
            rounds_total=rounds.total,
            calls=rounds.call,
            sendings=_sendings(histograms),
            twice_in_a_call_pages=self._marks.twice_in_a_call_pages,
            flushes=self._flushes,
            session=self._session,
            private_state=self._private,
            encrypted_vcpus=self._vcpus,
            devices=self._devices,
            history=self._histories.told(rounds.first_calls),
            against=self._against.told() if self._against else None,
        )

    def _blocks(self, histograms: list[NDArray[np.int64]]) -> list[BlockTotals]:
        each = zip(
            self._reader.blocks, histograms, self._rounds.pages, self._rounds.bytes, strict=True
        )
        return [
            BlockTotals(
                name=it.name,
                npages=it.npages,
                sent_pages=it.npages - int(histogram[0]),
                most_sends=int(np.flatnonzero(histogram)[-1]),
                pages=_by_kind(pages),
                bytes=counts_of(size),
            )
            for it, histogram, pages, size in each
        ]

    def _all_bytes(self) -> BytesByKind:
        """What is none of the others is framing."""
        by_kind = _by_kind(self._rounds.bytes.sum(axis=0))
        pages = int(self._rounds.bytes.sum())
        others = sum(self._bytes.values()) + self._device_bytes + self._end.description_bytes
        return BytesByKind(
            zero=by_kind.zero,
            normal=by_kind.normal,
            xbzrle=by_kind.xbzrle,
            compressed=by_kind.compressed,
            encrypted=by_kind.encrypted,
            **self._bytes,
            framing=self._reader.offset - pages - others,
            devices=self._device_bytes,
            description=self._end.description_bytes,
            unread=self._end.unread_bytes,
        )


def _sendings(histograms: list[NDArray[np.int64]]) -> list[SendingCount]:
    pages = np.sum(histograms, axis=0)
    return [SendingCount(times, int(pages[times])) for times in np.flatnonzero(pages).tolist()]


def _by_kind(numbers: NDArray[np.int64]) -> PagesByKind:
    return PagesByKind(**{it.name.lower(): int(numbers[it]) for it in Kind})


def _private_state(
    event: PrivateBitmaps | SharedList, before: PrivateStateReport | None
) -> PrivateStateReport:
    """With what earlier records told: some dialects have one for each memslot."""
    if isinstance(event, SharedList):
        shared = int((event.ends - event.starts).sum())
        return PrivateStateReport("list", event.starts.size, None, None, shared)
    ranges, pages, private = len(event.ranges), 0, 0
    if before and before.pages is not None and before.private_pages is not None:
        ranges, pages, private = ranges + before.ranges, before.pages, before.private_pages
    pages += sum(it.npages for it in event.ranges)
    private += sum(count(it.words, it.npages) for it in event.ranges)
    return PrivateStateReport("bitmaps", ranges, pages, private, pages - private)
