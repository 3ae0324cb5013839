"""A backend that keeps what another one answers, to be replayed where that one is not."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from kvmenc import package_version
from kvmenc.backend.callmemory import NO_FD
from kvmenc.backend.recordkeeper import Caller, Keeper
from kvmenc.backend.recordmodel import Header

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from kvmenc.backend.base import Backend

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
        self._fds: dict[int, int] = {}
        self._keeper = Keeper(
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
            self._keeper.opened(threading.get_ident(), path, flags, error.errno or 0)
            raise
        self._fds[fd] = self._keeper.opened(threading.get_ident(), path, flags)
        return fd

    def close(self, fd: int) -> None:
        """As the backend below."""
        symbol = self._fds.pop(fd, NO_FD)  # before: the number may be given again at once
        self._keeper.closing(symbol)
        try:
            self.lower.close(fd)
        except OSError as error:
            self._keeper.closed(threading.get_ident(), symbol, error.errno or 0)
            raise
        self._keeper.closed(threading.get_ident(), symbol)

    def mmap(self, fd: int, length: int, offset: int) -> mmap.mmap:
        """As the backend below."""
        thread, symbol, span = threading.get_ident(), self._fds.get(fd, NO_FD), (length, offset)
        try:
            area = self.lower.mmap(fd, length, offset)
        except OSError as error:
            self._keeper.mapped(thread, symbol, span, None, error.errno or 0)
            raise
        self._keeper.mapped(thread, symbol, span, area)
        return area

    def ioctl(self, fd: int, request: int, arg: int) -> int:
        """As the backend below."""
        caller = Caller(threading.get_ident(), os.getpid(), self._fds)
        asked = self._keeper.ask(caller, fd, request, arg)
        try:
            result = self.lower.ioctl(fd, request, arg)
        except OSError as error:
            self._keeper.answered(asked, -1, error.errno or 0)
            raise
        given = self._keeper.answered(asked, result)
        if given != NO_FD:
            self._fds[result] = given
        return result

    def seen(self, what: str, read: Callable[[], float | bytes]) -> float | bytes:
        """Keep what the program sees besides the calls, and decides by: a clock, a count."""
        value = read()
        self._keeper.seen(threading.get_ident(), what, value)
        return value

    def save(self, path: Path) -> None:
        """Write all that was kept: a whole file or none; then nothing more is kept.

        Raises:
            RecordingError: it cannot be written.
        """
        self._keeper.save(path)
