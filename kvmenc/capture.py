"""What was seen of a guest, as a file: its blocks, and how many pages it dirties in how long.

A capture is all that a plan needs, so that one machine can look and another one think. The file is
one JSON object of schema ``kvmenc.capture/1``. It may come from anywhere, so it is read as hostile:
of bounded size, every field checked, and nothing of a half-good file is used.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from kvmenc.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BlockFacts", "Capture", "CurvePoint", "SyncSample", "load_capture", "save_capture"]

SCHEMA: Final = "kvmenc.capture/1"
MAX_FILE_BYTES = 16 * 2**20

Pages = Annotated[int, Meta(ge=0, le=2**52)]
Milliseconds = Annotated[float, Meta(ge=0, le=1e12)]
Words = Annotated[str, Meta(min_length=1, max_length=255)]


class BlockFacts(Struct, frozen=True, forbid_unknown_fields=True):
    """One RAMBlock at the last sync, in pages.

    Attributes:
        name: the RAMBlock's name, as migration sends it.
        npages: pages in the block.
        private_pages: of these private; the rest is shared.
        zero_pages: shared pages that hold only zeros; null when their content was not looked at.
        unlogged_pages: pages in no memslot with a dirty log; their writes are not in the curve.
    """

    name: Words
    npages: Annotated[int, Meta(ge=1, le=2**52)]
    private_pages: Pages
    zero_pages: Pages | None
    unlogged_pages: Pages


class CurvePoint(Struct, frozen=True, forbid_unknown_fields=True):
    """Distinct pages written at least once in any stretch of ``ms`` milliseconds, by class.

    A page that was written, flipped and was written again may count in both.
    """

    ms: Milliseconds
    private_pages: Pages
    shared_pages: Pages


class SyncSample(Struct, frozen=True, forbid_unknown_fields=True):
    """One sync as it was read.

    Attributes:
        t_ms: when, since the capture began.
        ms: since the sync before.
        dirty_private_pages: pages written since the sync before that are private now.
        dirty_shared_pages: likewise shared.
        flipped_pages: pages that changed between private and shared since the sync before.
    """

    t_ms: Milliseconds
    ms: Milliseconds
    dirty_private_pages: Pages
    dirty_shared_pages: Pages
    flipped_pages: Pages


class Capture(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Everything known of a guest.

    Attributes:
        schema: ``kvmenc.capture/1``.
        source: what was looked at, in words.
        private_source: where private/shared came from, in words.
        holds: which writes the curve holds. ``vcpu``: writes by vCPUs; KVM's dirty log never sees
            those of devices.
        page_size: bytes in a page.
        blocks: the RAMBlocks, in the order in which migration sends them.
        curve: points of growing ``ms``; (0 ms, 0 pages) is implied.
        samples: the syncs behind the curve, oldest first.
    """

    schema: Literal["kvmenc.capture/1"] = SCHEMA
    source: Words
    private_source: Words
    holds: Literal["vcpu"] = "vcpu"
    page_size: Annotated[int, Meta(ge=4096, le=2**20)] = 4096
    blocks: Annotated[tuple[BlockFacts, ...], Meta(min_length=1, max_length=4096)]
    curve: Annotated[tuple[CurvePoint, ...], Meta(min_length=1, max_length=100_000)]
    samples: Annotated[tuple[SyncSample, ...], Meta(max_length=100_000)] = ()

    @property
    def npages(self) -> int:
        """Pages in all blocks."""
        return sum(block.npages for block in self.blocks)

    @property
    def private_pages(self) -> int:
        """Private pages in all blocks."""
        return sum(block.private_pages for block in self.blocks)


class _Schema(Struct):
    """The one field that every version of the file has."""

    schema: str


def load_capture(path: str | os.PathLike[str]) -> Capture:
    """Read a capture file.

    Raises:
        CaptureError: the file cannot be read, or is no capture; names the file, the field and what
            was expected there.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        return _decode(data)
    except OSError as error:
        raise _error(path, "cannot be read", error.strerror) from error
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise _error(path, "not a usable capture", error) from error


def save_capture(capture: Capture, path: str | os.PathLike[str]) -> None:
    """Write a capture file: the old file or the whole new one, never a part.

    Raises:
        CaptureError: the capture would not be readable, or the file cannot be written.
    """
    data = msgspec.json.format(msgspec.json.encode(capture), indent=1) + b"\n"
    try:
        _decode(data)
        _write_atomically(Path(path), data)
    except OSError as error:
        raise _error(path, "cannot be written", error.strerror) from error
    except (ValueError, msgspec.DecodeError) as error:
        raise _error(path, "this capture is not sound", error) from error


def _error(path: str | os.PathLike[str], what: str, why: object) -> CaptureError:
    """One line, even where the file's name or what it holds would break or colour it."""
    text = f"{os.fspath(path)}: {what}: {why}"
    return CaptureError(text[:500] if text.isprintable() else ascii(text)[1:-1][:500])


def _decode(data: bytes) -> Capture:
    """Decode and check; the error says which field is wrong and what was expected."""
    if len(data) > MAX_FILE_BYTES:
        raise ValueError(f"expected at most {MAX_FILE_BYTES} bytes")
    schema = msgspec.json.decode(data, type=_Schema).schema
    if schema != SCHEMA:
        raise ValueError(f"expected {SCHEMA!r}, got {schema[:40]!a} - at `$.schema`")
    capture = msgspec.json.decode(data, type=Capture)
    if fault := next(_faults(capture), None):
        field, expected = fault
        raise ValueError(f"expected {expected} - at `$.{field}`")
    return capture


def _faults(capture: Capture) -> Iterator[tuple[str, str]]:
    """What the types alone do not rule out, as (field, what was expected there)."""
    for field in ("source", "private_source"):
        if not getattr(capture, field).isprintable():
            yield field, "printable text"
    if capture.page_size.bit_count() != 1:
        yield "page_size", "a power of two"
    yield from _block_faults(capture.blocks)
    yield from _curve_faults(capture.curve, capture.npages)
    yield from _sample_faults(capture.samples, capture.npages)


def _block_faults(blocks: tuple[BlockFacts, ...]) -> Iterator[tuple[str, str]]:
    names = set()
    for i, block in enumerate(blocks):
        if not block.name.isprintable():
            yield f"blocks[{i}].name", "printable text"
        if block.name in names:
            yield f"blocks[{i}].name", "a name of its own"
        if block.private_pages + (block.zero_pages or 0) > block.npages:
            yield f"blocks[{i}]", f"private and zero pages within {block.npages}"
        if block.unlogged_pages > block.npages:
            yield f"blocks[{i}].unlogged_pages", f"at most {block.npages}"
        names.add(block.name)


def _curve_faults(curve: tuple[CurvePoint, ...], npages: int) -> Iterator[tuple[str, str]]:
    for i, (left, right) in enumerate(itertools.pairwise((CurvePoint(0, 0, 0), *curve))):
        if right.ms <= left.ms:
            yield f"curve[{i}].ms", f"more than {left.ms:g}"
        for field in ("private_pages", "shared_pages"):
            if getattr(right, field) < getattr(left, field):
                yield f"curve[{i}].{field}", f"at least {getattr(left, field)}"
            if getattr(right, field) > npages:  # not their sum: a page that flipped counts twice
                yield f"curve[{i}].{field}", f"at most {npages}"


def _sample_faults(samples: tuple[SyncSample, ...], npages: int) -> Iterator[tuple[str, str]]:
    t_ms = 0.0
    for i, sample in enumerate(samples):
        if sample.t_ms < t_ms:
            yield f"samples[{i}].t_ms", f"at least {t_ms:g}"
        if sample.dirty_private_pages + sample.dirty_shared_pages > npages:
            yield f"samples[{i}]", f"at most {npages} dirty pages"
        if sample.flipped_pages > npages:
            yield f"samples[{i}].flipped_pages", f"at most {npages}"
        t_ms = sample.t_ms


def _write_atomically(path: Path, data: bytes) -> None:
    """Write beside ``path``, flush to the disk, then rename over it."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename last: it is the directory that holds the name."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
