"""What is read, not mapped: a file that somebody writes, a pipe, anything that gives bytes."""

from __future__ import annotations

import fcntl
import select
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import RawIOBase

__all__ = ["Source"]

_PIPE_BYTES = 1 << 20  # fs/pipe.c, pipe_max_size: as much as anybody may ask for
_SOON_MS = 10


class Source:
    """Gives large pieces, which cost less to look through, also of a pipe, which gives small ones.

    Args:
        file: opened unbuffered.
    """

    def __init__(self, file: RawIOBase) -> None:
        self._file = file
        self._poll: select.poll | None = None
        with suppress(OSError):  # it has no descriptor, or is no pipe
            fcntl.fcntl(file, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
            self._poll = select.poll()
            self._poll.register(file, select.POLLIN)

    def read_into(self, room: memoryview) -> int:
        """Fill it; returns how many bytes came, 0 at the end.

        Who keeps a pipe open and sends nothing for a moment is not waited for, once some came.

        Raises:
            OSError: as readinto.
        """
        came = self._file.readinto(room) or 0
        while 0 < came < len(room) and self._has_more():
            more = self._file.readinto(room[came:]) or 0
            if not more:
                break
            came += more
        return came

    def _has_more(self) -> bool:
        return self._poll is not None and bool(self._poll.poll(_SOON_MS))
