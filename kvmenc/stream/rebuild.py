"""The RAM that a stream leaves at its destination, as far as it is not encrypted."""

from __future__ import annotations

import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from kvmenc.errors import StreamError
from kvmenc.stream.batch import Batch, Kind
from kvmenc.stream.events import BlockTable
from kvmenc.stream.xbzrle import patch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from kvmenc.stream.reader import StreamReader

__all__ = ["Rebuilt", "rebuild"]


@dataclass(slots=True)
class Rebuilt:
    """RAM by RAMBlock.

    Attributes:
        pages: arrays of (pages, page size); what was sent encrypted last is all zeros.
        encrypted: which pages those are.
    """

    pages: dict[str, NDArray[np.uint8]] = field(default_factory=dict)
    encrypted: dict[str, NDArray[np.bool_]] = field(default_factory=dict)


def rebuild(reader: StreamReader) -> Rebuilt:
    """Read a stream to its end, and do what a destination does with each page.

    Takes as much memory as the guest has RAM in use.

    Raises:
        StreamError: it is damaged.
    """
    ram = Rebuilt()
    for event in reader:
        if isinstance(event, BlockTable):
            for it in event.blocks:
                ram.pages[it.name] = np.zeros((it.npages, reader.page_bytes), np.uint8)
                ram.encrypted[it.name] = np.zeros(it.npages, np.bool_)
        elif isinstance(event, Batch):
            for name, pages in zip(ram.pages, _by_block(event, len(ram.pages)), strict=True):
                _apply(event, pages, ram.pages[name], ram.encrypted[name])
    return ram


def _by_block(batch: Batch, nblocks: int) -> list[NDArray[np.int64]]:
    return [np.flatnonzero(batch.blocks == i) for i in range(nblocks)]


def _apply(
    batch: Batch,
    which: NDArray[np.int64],
    ram: NDArray[np.uint8],
    encrypted: NDArray[np.bool_],
) -> None:
    """Runs of records of one kind at once; the order of kinds matters where a page comes twice."""
    kinds = batch.kinds[which]
    cuts = np.flatnonzero(np.diff(kinds)) + 1
    for run in np.split(which, cuts):
        if run.size:
            kind, pages = Kind(batch.kinds[run[0]]), batch.pages[run]
            encrypted[pages] = kind == Kind.ENCRYPTED
            _KINDS[kind](batch, run, pages, ram)


def _clear(
    _: Batch, __: NDArray[np.int64], pages: NDArray[np.int64], ram: NDArray[np.uint8]
) -> None:
    ram[pages] = 0


def _copy(
    batch: Batch, run: NDArray[np.int64], pages: NDArray[np.int64], ram: NDArray[np.uint8]
) -> None:
    ram[pages] = batch.tails(run, ram.shape[1])


def _patch(
    batch: Batch, run: NDArray[np.int64], pages: NDArray[np.int64], ram: NDArray[np.uint8]
) -> None:
    for i, page in zip(run.tolist(), pages.tolist(), strict=True):
        with _offset_named(batch, i):
            patch(ram[page], _payload(batch, i, 3))


def _inflate(
    batch: Batch, run: NDArray[np.int64], pages: NDArray[np.int64], ram: NDArray[np.uint8]
) -> None:
    size = ram.shape[1]
    for i, page in zip(run.tolist(), pages.tolist(), strict=True):
        with _offset_named(batch, i):
            content = zlib.decompressobj().decompress(_payload(batch, i, 4), size)
            if len(content) != size:
                raise StreamError(f"expected a page of {size} bytes, got {len(content)}")
            ram[page] = np.frombuffer(content, np.uint8)


def _payload(batch: Batch, i: int, after: int) -> bytes:
    """An encoded page, which stands after some bytes that tell its size."""
    end = batch.starts[i] + batch.sizes[i]
    return batch.view[batch.bodies[i] + after : end].tobytes()


@contextmanager
def _offset_named(batch: Batch, i: int) -> Iterator[None]:
    try:
        yield
    except (StreamError, zlib.error) as error:
        raise StreamError(f"at offset {batch.base + int(batch.starts[i]):#x}: {error}") from error


_KINDS = {
    Kind.ZERO: _clear,
    Kind.NORMAL: _copy,
    Kind.XBZRLE: _patch,
    Kind.COMPRESSED: _inflate,
    Kind.ENCRYPTED: _clear,
}
