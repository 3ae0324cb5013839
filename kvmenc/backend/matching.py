"""Is a call the recorded one? If not, what differs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvmenc import uapi
from kvmenc.backend.arguments import Way
from kvmenc.backend.recordmodel import (
    MAX_PIECE_BYTES,
    Closed,
    Ioctled,
    Mapped,
    Opened,
    Ran,
    Seen,
)
from kvmenc.backend.requests import differing_bytes, differing_fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from kvmenc.backend.callmemory import Part
    from kvmenc.backend.recordmodel import Call, Piece
    from kvmenc.backend.secrets import Secrets

__all__ = ["differences"]


def differences(recorded: Call, asked: Call, parts: Sequence[Part], secrets: Secrets) -> list[str]:
    """What differs, in words; nothing: it is the same call.

    Args:
        recorded: as the file has it.
        asked: as it is made now, all of its memory as it is.
        parts: that memory.
        secrets: what is known of bytes that the file has digests of.
    """
    match recorded, asked:
        case (Ioctled(), Ioctled()):
            return list(_of_ioctl(recorded, asked, parts, secrets))
        case (Opened(), Opened()):
            return _of_members(recorded, asked, "path", "flags")
        case (Mapped(), Mapped()):
            return _of_members(recorded, asked, "length", "offset")
        case (Closed(), Closed()) | (Seen(), Seen()):
            return []
        case (Ran(), Ioctled(request=uapi.KVM_RUN)):
            return ["these runs were counted only: there were too many to be kept"]
    return ["another call"]


def _of_members(recorded: Call, asked: Call, *names: str) -> list[str]:
    pairs = [(name, getattr(recorded, name), getattr(asked, name)) for name in names]
    return [f"{name}: recorded {old}, called {new}" for name, old, new in pairs if old != new]


def _of_ioctl(
    recorded: Ioctled, asked: Ioctled, parts: Sequence[Part], secrets: Secrets
) -> Iterator[str]:
    if recorded.request != asked.request:
        yield "another ioctl"
        return
    if recorded.arg != asked.arg:
        yield f"argument: recorded {recorded.arg:#x}, called {asked.arg:#x}"
    for part in parts:
        old, new = recorded.before.get(part.name), asked.before[part.name]
        if old is None:
            yield f"{part.name}: recorded none, called with {new.nbytes} bytes"
        elif old.nbytes != new.nbytes:
            yield f"{part.name}: recorded {old.nbytes} bytes, called with {new.nbytes}"
        elif Way.IN in part.way and part.compared and recorded.known:
            yield from _of_part(part, old, new, secrets)
    for name, piece in recorded.before.items():
        if name not in asked.before:
            yield f"{name}: recorded {piece.nbytes} bytes, called without"


def _of_part(part: Part, old: Piece, new: Piece, secrets: Secrets) -> Iterator[str]:
    if old.nbytes > MAX_PIECE_BYTES:
        return
    if new.data is None or (old.data is None and not old.digests):
        if (new.data is None) != (old.data is None and not old.digests):
            yield f"{part.name}: not mapped in one of both"
    elif old.data is None:
        if not secrets.are(old.digests, new.data):
            yield f"{part.name}: {new.nbytes} bytes of another digest"
    elif old.data != new.data:
        if part.shape:
            yield from (
                f"{part.name}.{it}" for it in differing_fields(part.shape, old.data, new.data)
            )
        else:
            yield f"{part.name}: {differing_bytes(old.data, new.data)}"
