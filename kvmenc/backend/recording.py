"""A backend that keeps what another one answers, to be replayed where that one is not.

What crosses the seam is kept: each call with what was in memory before and after it. Guest memory
is not: neither what a guest writes nor what the firmware writes there. Secrets (a guest's pages,
packets' contents, session keys) are kept as digests unless they are asked for.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import msgspec

from kvmenc import package_version, uapi
from kvmenc.backend.arguments import Way, argument_of
from kvmenc.backend.callmemory import NO_FD, parts_of, read_part
from kvmenc.backend.mappings import Mappings
from kvmenc.backend.recordfile import Writer
from kvmenc.backend.recordmodel import (
    Call,
    Closed,
    Header,
    Ioctled,
    Mapped,
    Opened,
    Piece,
    Seen,
)
from kvmenc.backend.requests import request_name
from kvmenc.backend.slottable import SlotTable

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kvmenc.backend.arguments import Argument
    from kvmenc.backend.base import Backend
    from kvmenc.backend.callmemory import Part

__all__ = ["RecordingBackend"]


class RecordingBackend:
    """``lower``, with each call kept; safe for several threads.

    Args:
        lower: who carries the calls out.
        fake: it is fakekvm.
        machine: files of the machine that it is on (see ``machine.read_machine``).
        contents: keep secrets as they are.

    Attributes:
        lower: the same.
    """

    def __init__(
        self,
        lower: Backend,
        *,
        fake: bool = False,
        machine: Mapping[str, str] | None = None,
        contents: bool = False,
    ) -> None:
        self.lower = lower
        self.name = lower.name
        self._contents = contents
        self._lock = threading.Lock()
        self._threads: dict[int, int] = {}
        self._fds: dict[int, int] = {}
        self._given = 0
        self._slots = SlotTable()
        self._mappings = Mappings()
        self._writer = Writer(
            Header(
                kvmenc_version=package_version(),
                backend=lower.name,
                fake=fake,
                contents=contents,
                machine=dict(machine or {}),
            )
        )

    def open(self, path: str, flags: int) -> int:
        """As the backend below."""
        try:
            fd = self.lower.open(path, flags)
        except OSError as error:
            self._keep(Opened(path=path, flags=flags, errno=error.errno or 0))
            raise
        self._keep(Opened(path=path, flags=flags, fd=self._give(fd)))
        return fd

    def close(self, fd: int) -> None:
        """As the backend below."""
        symbol = self._fds.pop(fd, NO_FD)  # before: the number may be given again at once
        self._mappings.forget(fd)
        self._slots.forget(fd)
        try:
            self.lower.close(fd)
        except OSError as error:
            self._keep(Closed(fd=symbol, errno=error.errno or 0))
            raise
        self._keep(Closed(fd=symbol))

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """As the backend below."""
        symbol = self._fds.get(fd, NO_FD)
        try:
            area = self.lower.mmap(fd, length, offset)
        except OSError as error:
            number = error.errno or 0
            self._keep(Mapped(fd=symbol, length=length, offset=offset, errno=number))
            raise
        changes = self._mappings.add(fd, offset, area, symbol)
        self._keep(Mapped(fd=symbol, length=length, offset=offset, maps=changes))
        return area

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """As the backend below."""
        argument = argument_of(request)
        parts = self._parts(argument, fd, arg)
        before = {part.name: self._read(part) for part in parts}
        watched = self._mappings.watch(fd, request)
        result, failed = self._carry_out(fd, request, arg)
        given = self._give(result) if argument.gives_fd and not failed else NO_FD
        call = Ioctled(
            fd=self._fds.get(fd, NO_FD),
            request=int(request),
            name=request_name(request, before),
            arg=arg if argument.shape is None else int(arg != 0),
            known=argument.known and all(part.followed for part in parts),
            before={part.name: _asked(part, before[part.name]) for part in parts},
            after=self._after(parts, before, wrote=failed is None),
            result=0 if given != NO_FD else result,
            errno=(failed.errno or 0) if failed else 0,
            maps=self._mappings.changes(watched),
            gives=given,
        )
        self._keep(call)
        if failed:
            raise failed
        self._learn(fd, request, arg, result)
        return result

    def _carry_out(self, fd: int, request: int, arg: int) -> tuple[int, OSError | None]:
        try:
            return self.lower.ioctl(fd, request, arg), None
        except OSError as error:
            return -1, error

    def seen(self, what: str, read: Callable[[], float | bytes]) -> float | bytes:
        """Keep what the program sees besides the calls, and decides by: a clock, a count."""
        value = read()
        self._keep(Seen(what=what, value=value))
        return value

    def save(self, path: Path) -> None:
        """Write all that was kept: a whole file or none; then nothing more is kept.

        Raises:
            RecordingError: it cannot be written.
        """
        with self._lock:
            self._writer.save(path)

    def _parts(self, argument: Argument, fd: int, arg: int) -> list[Part]:
        if argument.shape is None:
            return []
        return list(parts_of(argument.shape, arg, self._slots.of(fd)))

    def _read(self, part: Part) -> Piece:
        return read_part(part, self._fds, contents=self._contents)

    def _after(
        self, parts: list[Part], before: Mapping[str, Piece], *, wrote: bool
    ) -> dict[str, Piece]:
        """What came out; of what went in too, and of a failed call, only what has changed."""
        found = {}
        for part in parts:
            if Way.OUT in part.way:
                piece = self._read(part)
                if piece != before[part.name] or (wrote and Way.IN not in part.way):
                    found[part.name] = piece
        return found

    def _give(self, fd: int) -> int:
        with self._lock:
            self._fds[fd] = self._given
            self._given += 1
            return self._fds[fd]

    def _learn(self, fd: int, request: int, arg: int, result: int) -> None:
        self._slots.learn(fd, request, arg)
        if request == uapi.KVM_CREATE_VCPU:
            self._mappings.born(result, fd)

    def _keep(self, call: Call) -> None:
        with self._lock:
            thread = self._threads.setdefault(threading.get_ident(), len(self._threads))
            self._writer.add(msgspec.structs.replace(call, thread=thread))


def _asked(part: Part, piece: Piece) -> Piece:
    """Of what only comes out, nothing is kept of what was there before."""
    return piece if Way.IN in part.way else Piece(nbytes=piece.nbytes)
