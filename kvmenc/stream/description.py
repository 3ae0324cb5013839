"""What a stream says of its devices at its end: only that tells how long their states are.

QEMU 7.2, migration/savevm.c, ``qemu_savevm_state_complete_precopy_non_iterable``, and
migration/vmstate.c, ``vmstate_save_state_v`` and ``vmstate_subsection_save``.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING, Annotated

import msgspec

from kvmenc.errors import StreamError
from kvmenc.stream.window import printable
from kvmenc.stream.wire import Section

if TYPE_CHECKING:
    from io import RawIOBase

__all__ = ["MAX_DESCRIPTION_BYTES", "Described", "find_description"]

#: A small PC has 30 KB.
MAX_DESCRIPTION_BYTES = 16 << 20
#: Where it is looked for: most of a long tail would be pages.
_TAILS_BYTES = (1 << 16, MAX_DESCRIPTION_BYTES + 5)
#: Type and length. The first member is page_size in QEMU 7.2, and configuration in 10.0.
_START = re.compile(bytes([Section.VMDESCRIPTION]) + rb"....(?=\{\")", re.DOTALL)


_Size = Annotated[int, msgspec.Meta(ge=0, le=2**40)]


class _Field(msgspec.Struct):
    size: _Size
    array_len: _Size = 1

    @property
    def size_bytes(self) -> int:
        return self.size * self.array_len


class _Subsection(msgspec.Struct):
    vmsd_name: str
    fields: list[_Field] = []
    subsections: list[_Subsection] = []

    @property
    def size_bytes(self) -> int:
        """A byte for the type, a counted name, a version, then what is in it."""
        head = 2 + len(self.vmsd_name.encode(errors="replace")) + 4
        return head + _sum(self.fields, self.subsections)


def _sum(fields: list[_Field], subsections: list[_Subsection]) -> int:
    return sum(it.size_bytes for it in fields) + sum(it.size_bytes for it in subsections)


class Described(msgspec.Struct):
    """A device's state, without its section's header and footer.

    Attributes:
        name: of the section.
        instance_id: which of that name.
    """

    name: str
    instance_id: int
    fields: list[_Field] = []
    subsections: list[_Subsection] = []

    @property
    def size_bytes(self) -> int:
        """On the wire."""
        return _sum(self.fields, self.subsections)


class _Description(msgspec.Struct):
    devices: list[Described]


def find_description(file: RawIOBase, name: str) -> tuple[int, list[Described]] | None:
    """Look for it at the end of a file, and go back to where the file stood.

    Args:
        file: the stream.
        name: as errors call it.

    Returns:
        Its size in bytes and the devices, in the order of the stream. None: the file has none, or
        is a pipe.

    Raises:
        StreamError: it is no such description.
    """
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        return None
    size = status.st_size
    tails = _TAILS_BYTES if size > _TAILS_BYTES[0] else _TAILS_BYTES[:1]
    found = next(filter(None, (_description(file, size, most) for most in tails)), None)
    if found is None:
        return None
    try:
        return len(found), msgspec.json.decode(found, type=_Description).devices
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = f"{name}: the description of the devices at its end cannot be read: {error}"
        raise StreamError(printable(text)) from error


def _description(file: RawIOBase, size: int, most: int) -> bytes | None:
    """A description among the last bytes of a file that is so long."""
    back = file.tell()
    file.seek(max(0, size - most))
    tail = file.read(most) or b""
    file.seek(back)
    return next(
        (tail[it.end() :] for it in _START.finditer(tail) if _ends_the_file(tail, it.end())), None
    )


def _ends_the_file(tail: bytes, at: int) -> bool:
    """Whether what begins here is as long as is said just before."""
    return int.from_bytes(tail[at - 4 : at], "big") == len(tail) - at
