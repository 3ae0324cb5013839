"""Capture files: loaded, opened, saved."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self, get_args

from kvmenc.atomic import write_atomically
from kvmenc.capture.container import MAGIC, MAX_BITMAPS_BYTES, Container, write_container
from kvmenc.capture.facts import MAX_FACTS_BYTES, decode, encode
from kvmenc.capture.model import BitmapKind
from kvmenc.errors import CaptureError
from kvmenc.filekind import begins_as, may_be_json
from kvmenc.memory.words import WORD, Words, count, words_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kvmenc.capture.model import BlockFacts, Capture

__all__ = ["Bitmaps", "CaptureFile", "load_capture", "open_capture", "save_capture"]

#: By kind and name of the RAMBlock; ``words_for(npages)`` words each, bits past the last page 0.
Bitmaps = Mapping[tuple[BitmapKind, str], Words]


class CaptureFile:
    """An open capture file; a context manager that closes it.

    Args:
        path: the file; a container, or only the facts as JSON, which hold no bitmaps.

    Attributes:
        capture: the facts.

    Raises:
        CaptureError: the file cannot be read, or is no capture; names the file, the field and what
            was expected there.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        self._container: Container | None = None
        with _errors_named(path, "cannot be read", "not a usable capture"):
            self._file = Path(path).open("rb")  # noqa: SIM115 - closed by __exit__
            try:
                self.capture = self._read()
            except BaseException:
                self._file.close()
                raise
        self._index = {block.name: i for i, block in enumerate(self.capture.blocks)}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def kinds(self, block_name: str) -> tuple[BitmapKind, ...]:
        """Which bitmaps of a RAMBlock the file holds. A name of no block is a KeyError."""
        container, index = self._container, self._index[block_name]
        if not container:
            return ()
        return tuple(kind for kind in get_args(BitmapKind) if container.holds(kind, index))

    def bitmap(self, kind: BitmapKind, block_name: str) -> Words:
        """Read one of the ``kinds`` of a RAMBlock: ``words_for(npages)`` words.

        Raises:
            CaptureError: the file has no such bitmap, or it is damaged.
        """
        index = self._index[block_name]
        block = self.capture.blocks[index]
        with _errors_named(self._path, "cannot be read", "not a usable capture"):
            if not self._container or not self._container.holds(kind, index):
                raise ValueError(f"it holds no {kind} bitmap of {block_name!r}")
            words = self._container.words(kind, index, block.npages)
            _check_bitmap(kind, block, words)
        return words

    def _read(self) -> Capture:
        start = self._file.read(len(MAGIC))
        if start != MAGIC:
            if not may_be_json(start):
                raise ValueError(begins_as(start))
            return decode(start + self._file.read(MAX_FACTS_BYTES + 1 - len(start)))
        if not self._file.seekable():
            raise OSError("it is a pipe, and a capture is read from its end: save it first")
        self._container = Container(self._file)
        capture = decode(self._container.facts())
        self._container.check_members(capture.blocks)
        return capture


def load_capture(path: str | os.PathLike[str]) -> Capture:
    """Read a capture file's facts, whatever the size of its bitmaps.

    Raises:
        CaptureError: as :class:`CaptureFile`.
    """
    with CaptureFile(path) as file:
        return file.capture


def open_capture(path: str | os.PathLike[str]) -> CaptureFile:
    """Open a capture file; its facts are read at once, each bitmap when it is asked for.

    Raises:
        CaptureError: as :class:`CaptureFile`.
    """
    return CaptureFile(path)


def save_capture(
    capture: Capture, path: str | os.PathLike[str], bitmaps: Bitmaps | None = None
) -> None:
    """Write a capture file: the old file or the whole new one, never a part.

    Args:
        capture: the facts.
        path: where to.
        bitmaps: those to be kept.

    Raises:
        CaptureError: the capture would not be readable, or the file cannot be written.
    """
    with _errors_named(path, "cannot be written", "this capture is not sound"):
        facts = encode(capture)
        by_index = _checked(capture, bitmaps or {})

        def write(file: IO[bytes]) -> None:
            write_container(file, facts, by_index)

        write_atomically(Path(path), write)


def _checked(capture: Capture, bitmaps: Bitmaps) -> dict[tuple[BitmapKind, int], Words]:
    """The bitmaps by kind and index, in the order of the RAMBlocks."""
    index = {block.name: i for i, block in enumerate(capture.blocks)}
    for kind, name in bitmaps:
        if kind not in get_args(BitmapKind) or name not in index:
            raise ValueError(f"a bitmap {kind!r} of {name!r}: there is no such kind or block")
        _check_bitmap(kind, capture.blocks[index[name]], bitmaps[kind, name])
    if sum(words.nbytes for words in bitmaps.values()) > MAX_BITMAPS_BYTES:
        raise ValueError(f"expected at most {MAX_BITMAPS_BYTES} bytes of bitmaps")
    return {(kind, index[name]): words for (kind, name), words in bitmaps.items()}


def _check_bitmap(kind: BitmapKind, block: BlockFacts, words: Words) -> None:
    """Shape, bits past the last page, and the count where the facts hold it."""
    what, npages = f"{kind} bitmap of {block.name!r}", block.npages
    if words.dtype != WORD or words.shape != (words_for(npages),):
        raise ValueError(f"{what}: expected {words_for(npages)} words of {WORD.str}")
    if npages % 64 and int(words[-1]) >> npages % 64:
        raise ValueError(f"{what}: expected no bit past page {npages - 1}")
    expected = {"private": block.private_pages, "zero": block.zero_pages}.get(kind)
    if expected is not None and (got := count(words, npages)) != expected:
        raise ValueError(f"{what}: expected {expected} pages as in the facts, got {got}")


@contextmanager
def _errors_named(path: str | os.PathLike[str], unreachable: str, unsound: str) -> Iterator[None]:
    """Make what goes wrong with a file one CaptureError."""
    try:
        yield
    except OSError as error:
        raise _error(path, unreachable, error.strerror or error) from error
    except (ValueError, RecursionError) as error:
        raise _error(path, unsound, error) from error


def _error(path: str | os.PathLike[str], what: str, why: object) -> CaptureError:
    """One line, even where the file's name or what it holds would break or colour it."""
    text = f"{os.fspath(path)}: {what}: {why}"
    return CaptureError(text[:500] if text.isprintable() else ascii(text)[1:-1][:500])
