"""Keeps calls, whoever makes them: what was in memory before each, and what after it.

Guest memory is not kept: neither what a guest writes nor what the firmware writes there. Secrets (a
guest's pages, packets' contents, session keys) are kept as digests unless they are asked for.
"""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from kvmenc import uapi
from kvmenc.backend.arguments import Way, argument_of
from kvmenc.backend.callmemory import NO_FD, parts_of, read_part
from kvmenc.backend.mappings import Mappings
from kvmenc.backend.recordfile import Writer
from kvmenc.backend.recordmodel import (
    Call,
    Closed,
    Ioctled,
    Mapped,
    Opened,
    Piece,
    Ran,
    Seen,
)
from kvmenc.backend.requests import request_name
from kvmenc.backend.slottable import SlotTable
from kvmenc.errors import errno_name

if TYPE_CHECKING:
    import mmap
    from collections.abc import Mapping
    from pathlib import Path

    from kvmenc.backend.arguments import Argument
    from kvmenc.backend.callmemory import Part
    from kvmenc.backend.mappings import Watched
    from kvmenc.backend.recordmodel import Header

__all__ = ["Asked", "Caller", "Keeper"]


class Caller(NamedTuple):
    """Who makes a call.

    Attributes:
        thread: its id.
        pid: the process whose memory and descriptors the call names.
        fds: symbols of these descriptors.
    """

    thread: int
    pid: int
    fds: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Asked:
    """An ioctl that was not answered yet.

    Attributes:
        caller: who makes it.
        fd: the symbol of its descriptor.
        request: its number.
        arg: its argument.
        argument: what that is.
        parts: the memory that it names.
        before: what is there.
        watched: mappings that it may change; None: it is only counted.
    """

    caller: Caller
    fd: int
    request: int
    arg: int
    argument: Argument
    parts: list[Part]
    before: dict[str, Piece]
    watched: list[Watched] | None


class Keeper:
    """Makes one recording; safe for several threads.

    Args:
        header: of it.
        most_runs: of each vCPU so many KVM_RUN are kept, and later ones counted; None: all.
        cut: a recording that grows larger than a reader accepts ends there; else it is not written.
    """

    def __init__(self, header: Header, *, most_runs: int | None = None, cut: bool = False) -> None:
        self._contents = header.contents
        self._most_runs = most_runs
        self._lock = threading.Lock()
        self._threads: dict[int, int] = {}
        self._given = 0
        self._slots = SlotTable()
        self._mappings = Mappings(contents=header.contents)
        self._runs: Counter[int] = Counter()
        self._counted: dict[int, Counter[str]] = {}
        self._writer = Writer(header, cut=cut)

    @property
    def calls(self) -> int:
        """How many are kept."""
        return self._writer.calls

    @property
    def left_out(self) -> int:
        """How many are not, because the recording is full."""
        return self._writer.left_out

    def opened(self, thread: int, path: str, flags: int, number: int = 0) -> int:
        """A device was opened, or failed with errno ``number``; returns its symbol."""
        symbol = NO_FD if number else self._give()
        self._keep(thread, Opened(path=path, flags=flags, fd=symbol, errno=number))
        return symbol

    def closing(self, symbol: int) -> None:
        """A descriptor is about to be closed: what is known of it is forgotten."""
        self._mappings.forget(symbol)
        self._slots.forget(symbol)

    def closed(self, thread: int, symbol: int, number: int = 0) -> None:
        """It was closed, or that failed with errno ``number``."""
        self._keep_counts(thread, symbol)
        self._keep(thread, Closed(fd=symbol, errno=number))

    def mapped(
        self,
        thread: int,
        symbol: int,
        span: tuple[int, int],
        area: mmap.mmap | None,
        number: int = 0,
    ) -> None:
        """A descriptor was mapped, or that failed with errno ``number``.

        Args:
            thread: by whom.
            symbol: the descriptor.
            span: length and offset in bytes.
            area: the mapping, or one alike: read again at later calls.
            number: 0: it worked.
        """
        length, offset = span
        changes = self._mappings.add(symbol, offset, area) if area is not None else ()
        mapped = Mapped(fd=symbol, length=length, offset=offset, maps=changes, errno=number)
        self._keep(thread, mapped)

    def seen(self, thread: int, what: str, value: float | bytes) -> None:
        """A program saw what decides which calls it makes."""
        self._keep(thread, Seen(what=what, value=value))

    def ask(self, caller: Caller, fd: int, request: int, arg: int) -> Asked:
        """An ioctl is about to be carried out.

        Args:
            caller: who makes it.
            fd: the caller's descriptor.
            request: its number.
            arg: its argument.
        """
        symbol = caller.fds.get(fd, NO_FD)
        argument = argument_of(request)
        shape = argument.shape
        parts = list(parts_of(caller.pid, shape, arg, self._slots.of(symbol))) if shape else []
        before = {part.name: self._read(caller, part) for part in parts}
        counted = request == uapi.KVM_RUN and self._is_one_too_many(symbol)
        watched = None if counted else self._mappings.watch(symbol, request)
        return Asked(caller, symbol, request, arg, argument, parts, before, watched)

    def answered(self, asked: Asked, result: int, number: int = 0) -> int:
        """It was carried out.

        Args:
            asked: by ``ask``.
            result: what it returned; -1: it failed.
            number: its errno then, else 0.

        Returns:
            The symbol of the descriptor that it returned, or NO_FD.
        """
        if asked.watched is None:
            self._count(asked.fd, number)
            return NO_FD
        given = self._give() if asked.argument.gives_fd and not number else NO_FD
        self._keep(asked.caller.thread, self._call(asked, asked.watched, result, number, given))
        if not number:
            self._slots.learn(asked.caller.pid, asked.fd, asked.request, asked.arg)
            if asked.request == uapi.KVM_CREATE_VCPU:
                self._mappings.born(given, asked.fd)
        return given

    def save(self, path: Path) -> None:
        """Write all that was kept: a whole file or none; then nothing more is kept.

        Raises:
            RecordingError: it cannot be written.
        """
        for symbol in list(self._counted):
            self._keep_counts(0, symbol)
        with self._lock:
            self._writer.save(path)

    def _call(
        self, asked: Asked, watched: list[Watched], result: int, number: int, given: int
    ) -> Ioctled:
        before = asked.before
        return Ioctled(
            fd=asked.fd,
            request=int(asked.request),
            name=request_name(asked.request, before),
            arg=asked.arg if asked.argument.shape is None else int(asked.arg != 0),
            known=asked.argument.known and all(part.followed for part in asked.parts),
            before={part.name: _asked(part, before[part.name]) for part in asked.parts},
            after=self._after(asked, wrote=not number),
            result=0 if given != NO_FD else result,
            errno=number,
            maps=self._mappings.changes(watched),
            gives=given,
        )

    def _read(self, caller: Caller, part: Part) -> Piece:
        return read_part(caller.pid, part, caller.fds, contents=self._contents)

    def _after(self, asked: Asked, *, wrote: bool) -> dict[str, Piece]:
        """What came out; of what went in too, and of a failed call, only what has changed."""
        found = {}
        for part in asked.parts:
            if Way.OUT in part.way:
                piece = self._read(asked.caller, part)
                if piece != asked.before[part.name] or (wrote and Way.IN not in part.way):
                    found[part.name] = piece
        return found

    def _give(self) -> int:
        with self._lock:
            self._given += 1
            return self._given - 1

    def _is_one_too_many(self, symbol: int) -> bool:
        if self._most_runs is None:
            return False
        self._runs[symbol] += 1
        return self._runs[symbol] > self._most_runs

    def _count(self, symbol: int, number: int) -> None:
        reason = self._mappings.exit_reason(symbol)
        exited = "unseen" if reason is None else uapi.exit_name(reason)
        name = errno_name(number) if number else exited
        self._counted.setdefault(symbol, Counter())[name] += 1

    def _keep_counts(self, thread: int, symbol: int) -> None:
        if counts := self._counted.pop(symbol, None):
            self._keep(thread, Ran(fd=symbol, exits=dict(sorted(counts.items()))))

    def _keep(self, thread: int, call: Call) -> None:
        with self._lock:
            number = self._threads.setdefault(thread, len(self._threads))
            self._writer.add(msgspec.structs.replace(call, thread=number))


def _asked(part: Part, piece: Piece) -> Piece:
    """Of what only comes out, nothing is kept of what was there before."""
    return piece if Way.IN in part.way else Piece(nbytes=piece.nbytes)
