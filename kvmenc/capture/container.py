"""The container: a ZIP that holds a capture's facts as JSON and its bitmaps as NumPy arrays.

Its members are ``capture.json`` and, for each bitmap kept, ``KIND/INDEX.npy``: INDEX is the
RAMBlock's place in ``Capture.blocks``. So ``unzip -p FILE capture.json`` shows the facts, and
``numpy.load(FILE)["dirty/0"]`` is a bitmap.

A file is read as hostile. Python's zipfile allocates what a directory claims, so the record that
says how large the directory is gets checked before; a member is used only if it is exactly what
the facts call for. What is refused raises ValueError.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Final, get_args

import numpy as np

from kvmenc.capture.facts import MAX_FACTS_BYTES
from kvmenc.capture.model import BitmapKind
from kvmenc.memory.words import WORD, words_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from kvmenc.capture.model import BlockFacts
    from kvmenc.memory.words import Words

__all__ = ["MAGIC", "MAX_BITMAPS_BYTES", "Container", "write_container"]

#: A ZIP's first bytes.
MAGIC = b"PK\x03\x04"
#: Of all bitmaps together, not compressed: three of a guest of 20 TiB. Little more fits what
#: zipfile writes without the 64-bit extension, which ends at 2 GiB.
MAX_BITMAPS_BYTES = 2000 * 2**20

_FACTS = "capture.json"
# Of a busy guest of 1 TiB with 96 MiB of bitmaps, level 1 makes 7 MiB; level 6 takes five times as
# long to make 5.
_LEVEL = 1
_CHUNK_BYTES = 2**20

_MAX_MEMBERS = 1 + len(get_args(BitmapKind)) * 4096
# A directory entry of 46 bytes and a name.
_MAX_DIRECTORY_BYTES = _MAX_MEMBERS * (46 + len("private/4095.npy"))
# APPNOTE.TXT 6.3.10, 4.3.16: signature, disks, entries here and in all, directory's size and place,
# length of a comment.
_END: Final = struct.Struct("<4s4H2LH")
# 4.3.15: where it stands before the end record, a reader looks elsewhere for these numbers.
_LOCATOR_BYTES = 20

#: All that zipfile raises for a file that is damaged or made up.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error)


def write_container(
    file: IO[bytes], facts: bytes, bitmaps: Mapping[tuple[BitmapKind, int], Words]
) -> None:
    """Write facts, and bitmaps by kind and index of the RAMBlock.

    The same contents make the same bytes: no times are kept.
    """
    with zipfile.ZipFile(
        file, "w", zipfile.ZIP_DEFLATED, allowZip64=False, compresslevel=_LEVEL
    ) as archive:
        with archive.open(_FACTS, "w") as member:
            member.write(facts)
        for (kind, index), words in bitmaps.items():
            with archive.open(f"{kind}/{index}.npy", "w") as member:
                member.write(_npy_header(words.size))
                data = np.ascontiguousarray(words).view(np.uint8).data
                for start in range(0, data.nbytes, _CHUNK_BYTES):
                    member.write(data[start : start + _CHUNK_BYTES])


class Container:
    """A container being read; a bitmap is read when it is asked for.

    Args:
        file: open for reading, seekable.

    Raises:
        ValueError: it is no container, or no sound one.
        OSError: it cannot be read.
    """

    def __init__(self, file: IO[bytes]) -> None:
        _check_end(file)
        with _damage_named("its directory"):
            self._archive = zipfile.ZipFile(file)
        self._members = {member.filename: member for member in self._archive.infolist()}
        if len(self._members) < len(self._archive.infolist()):
            raise ValueError("two members have one name")
        for name, member in self._members.items():
            if member.flag_bits or member.compress_type != zipfile.ZIP_DEFLATED:
                raise ValueError(f"member {name[:40]!a}: expected plain deflate")

    def facts(self) -> bytes:
        """The facts, as JSON.

        Raises:
            ValueError: absent, too large, or damaged.
        """
        if _FACTS not in self._members:
            raise ValueError(f"expected a member {_FACTS!r}")
        if (size := self._members[_FACTS].file_size) > MAX_FACTS_BYTES:
            raise ValueError(f"expected at most {MAX_FACTS_BYTES} bytes of facts, got {size}")
        facts = bytearray(size)
        self._read_into(_FACTS, memoryview(facts))
        return bytes(facts)

    def check_members(self, blocks: Sequence[BlockFacts]) -> None:
        """Check every member's name and size against the facts.

        Raises:
            ValueError: a member that does not belong there, or not so.
        """
        sizes = {
            f"{kind}/{index}.npy": len(_npy_header(nwords)) + nwords * WORD.itemsize
            for index, nwords in enumerate(words_for(block.npages) for block in blocks)
            for kind in get_args(BitmapKind)
        }
        bitmaps_bytes = 0
        for name, member in self._members.items():
            if name == _FACTS:
                continue
            if name not in sizes:
                raise ValueError(f"member {name[:40]!a}: expected none of that name")
            if member.file_size != sizes[name]:
                raise ValueError(f"member {name}: expected {sizes[name]} bytes uncompressed")
            bitmaps_bytes += member.file_size
        if bitmaps_bytes > MAX_BITMAPS_BYTES:
            raise ValueError(f"expected at most {MAX_BITMAPS_BYTES} bytes of bitmaps")

    def holds(self, kind: BitmapKind, index: int) -> bool:
        """Whether there is such a bitmap of the RAMBlock at this place."""
        return f"{kind}/{index}.npy" in self._members

    def words(self, kind: BitmapKind, index: int, npages: int) -> Words:
        """A bitmap, as ``words_for(npages)`` words.

        Raises:
            ValueError: damaged.
            OSError: it cannot be read.
        """
        words = np.empty(words_for(npages), WORD)
        self._read_into(f"{kind}/{index}.npy", words.view(np.uint8).data, _npy_header(words.size))
        return words

    def _read_into(self, name: str, target: memoryview, header: bytes = b"") -> None:
        """Fill ``target`` from a member that begins with ``header``; its checksum is checked."""
        with _damage_named(f"member {name}"), self._archive.open(self._members[name]) as member:
            if member.read(len(header)) != header:
                raise ValueError(f"member {name}: expected another .npy header")
            for start in range(0, target.nbytes, _CHUNK_BYTES):
                part = target[start : start + _CHUNK_BYTES]
                data = member.read(part.nbytes)
                if len(data) != part.nbytes:
                    raise ValueError(f"member {name}: it ends early")
                part[:] = data


@contextmanager
def _damage_named(what: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGE as error:
        raise ValueError(f"{what} is damaged: {error}") from error


def _check_end(file: IO[bytes]) -> None:
    """Check what zipfile will believe of the directory."""
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - _LOCATOR_BYTES))
    tail = file.read(_END.size + _LOCATOR_BYTES)
    if len(tail) < _END.size + _LOCATOR_BYTES or tail.startswith(b"PK\x06\x07"):
        raise ValueError("expected a ZIP without 64-bit extension")
    signature, disk, first, here, entries, length, place, comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\x05\x06" or disk or first or comment or here != entries:
        raise ValueError("expected an end record of a ZIP as its last 22 bytes")
    if length > _MAX_DIRECTORY_BYTES or place + length + _END.size != size:
        raise ValueError(f"expected a directory of at most {_MAX_DIRECTORY_BYTES} bytes at the end")


def _npy_header(nwords: int) -> bytes:
    """What numpy writes before a one-dimensional array of ``<u8``: format 1.0, 128 bytes.

    Written out here, so that files stay the same and readable whatever numpy writes one day.
    Source: numpy 2.1, numpy/lib/format.py.
    """
    description = f"{{'descr': '<u8', 'fortran_order': False, 'shape': ({nwords},), }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", 118) + description.ljust(117).encode() + b"\n"
