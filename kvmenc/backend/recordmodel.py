"""What is in a recording: a header, and a record for each call; docs/recordings.md describes it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

__all__ = [
    "CHUNK_BYTES",
    "DIGEST_BYTES",
    "MAX_MAPPED_BYTES",
    "MAX_PIECE_BYTES",
    "SCHEMA",
    "AnyCall",
    "Call",
    "Change",
    "Closed",
    "End",
    "Header",
    "Ioctled",
    "Mapped",
    "Opened",
    "Piece",
    "Ran",
    "Recording",
    "Seen",
]

SCHEMA: Final = "kvmenc.recording/1"

#: The bitmap of a memslot of 1 TiB has as many.
MAX_PIECE_BYTES = 32 * 2**20
#: A vCPU's kvm_run and its dirty ring; a ring has 65536 entries of 16 bytes at most.
MAX_MAPPED_BYTES = 4 * 2**20

CHUNK_BYTES, DIGEST_BYTES = 4096, 16

_Fd = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
_Errno = Annotated[int, Meta(ge=0, le=4095)]
_Result = Annotated[int, Meta(ge=-1, le=2**31 - 1)]
_U64 = Annotated[int, Meta(ge=0)]  # only ever compared, whatever its size
_Name = Annotated[str, Meta(max_length=200)]
_Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Place = Annotated[int, Meta(ge=0, le=MAX_MAPPED_BYTES)]


class _Record(Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What all records are."""


class Piece(_Record, frozen=True, kw_only=True):
    """Memory that a call names.

    Attributes:
        nbytes: its size in bytes.
        data: its bytes; of a struct, with symbols.
        digests: instead of them: BLAKE2b-128 of each 4 KiB. Without either it could not be read.
    """

    nbytes: _Count
    data: bytes | None = None
    digests: bytes = b""


class Change(_Record, frozen=True, kw_only=True):
    """Bytes of a vCPU's mapping that the kernel changed during a call.

    Attributes:
        fd: the vCPU's number.
        offset: bytes from the start of what can be mapped.
        data: the new bytes.
    """

    fd: _Fd
    offset: _Place
    data: bytes


class Call(_Record, frozen=True, kw_only=True, tag_field="call"):
    """One call at the seam.

    Attributes:
        thread: the number of the program's thread that made it, in the order of first calls.
        errno: Linux's number; 0 if it did what was asked.
    """

    thread: _Count = 0
    errno: _Errno = 0


class Opened(Call, frozen=True, kw_only=True, tag="open"):
    """open(2).

    Attributes:
        path: that was opened.
        flags: the number that it was opened with.
        fd: the number of the descriptor, counted from 0 in a recording; -1: none.
    """

    path: _Name
    flags: _U64
    fd: _Fd = -1


class Ioctled(Call, frozen=True, kw_only=True, tag="ioctl"):
    """ioctl(2).

    Attributes:
        fd: the descriptor's number, counted from 0; -1: not one of this recording.
        request: the number.
        name: for readers.
        arg: the number, or 0 and 1 for an address.
        known: kvmenc knows the argument; else only its size was believed, and it is not compared.
        before: what was there before the call.
        after: what was there after it.
        result: the number that it returned.
        gives: the number of the descriptor that it returned, counted from 0; -1: none.
        maps: what it changed in vCPUs' mappings.
    """

    fd: _Fd
    request: _U64
    name: _Name
    arg: _U64 = 0
    known: bool = True
    before: dict[_Name, Piece] = {}
    after: dict[_Name, Piece] = {}
    result: _Result = 0
    gives: _Fd = -1
    maps: tuple[Change, ...] = ()


class Mapped(Call, frozen=True, kw_only=True, tag="mmap"):
    """mmap(2) of a vCPU's descriptor.

    Attributes:
        fd: the vCPU's number.
        length: bytes.
        offset: bytes from the start of what can be mapped.
        maps: what was there at first, other than zeros.
    """

    fd: _Fd
    length: Annotated[int, Meta(ge=4096, le=MAX_MAPPED_BYTES)]
    offset: _Place
    maps: tuple[Change, ...] = ()


class Closed(Call, frozen=True, kw_only=True, tag="close"):
    """close(2).

    Attributes:
        fd: the descriptor's number.
    """

    fd: _Fd


class Ran(Call, frozen=True, kw_only=True, tag="ran"):
    """KVM_RUN of a vCPU that was counted only: how often it ended how.

    Attributes:
        fd: the vCPU's number.
        exits: by ``KVM_EXIT_`` or errno.
    """

    fd: _Fd
    exits: dict[_Name, _Count]


class Seen(Call, frozen=True, kw_only=True, tag="seen"):
    """No call: what the program saw besides, and that decided what it called: a clock, a count.

    Attributes:
        what: was looked at.
        value: as it was, in no unit of ours: it is only given again.
    """

    what: _Name
    value: float | int | bytes


class End(Struct, tag="end", tag_field="call", omit_defaults=True, forbid_unknown_fields=True):
    """The last line.

    Attributes:
        calls: how many lines came before it, but for the header.
        left_out: how many calls were made after these: the recording was full.
    """

    calls: int
    left_out: _Count = 0


class Header(Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The first line.

    Attributes:
        schema: ``kvmenc.recording/1``.
        kvmenc_version: that wrote it.
        backend: whose answers they are.
        fake: fakekvm's: guests were scripts, and there is no machine.
        contents: guest contents and session keys are in it as they are.
        machine: files of the machine that a probe reads, by path from the root.
    """

    schema: Literal["kvmenc.recording/1"] = SCHEMA
    kvmenc_version: _Name
    backend: _Name
    fake: bool
    contents: bool
    machine: dict[str, str] = {}


AnyCall = Opened | Ioctled | Mapped | Closed | Ran | Seen


class Recording(Struct, frozen=True):
    """A whole recording."""

    header: Header
    calls: tuple[AnyCall, ...]
