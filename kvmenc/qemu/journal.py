"""A file that outlives its writer: what has to be put back, locked for as long as the writer lives.

Nothing here trusts the folder, which may be /tmp: no link is followed, and a file must be our own.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from kvmenc.errors import HostError, errno_name

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Journal"]

_MOST_BYTES = 65536


class Journal:
    """One journal: ``begin`` or ``resume`` it, then ``forget`` it; a context manager.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def begin(self, content: bytes) -> None:
        """Write down what has to be put back.

        Raises:
            HostError: somebody else has begun one, or it cannot be written.
        """
        try:
            os.write(self._open(os.O_CREAT | os.O_EXCL), content)
        except OSError as error:
            raise self._error(error) from error

    def resume(self) -> bytes | None:
        """What one that is dead wrote down; None if there is no journal.

        Raises:
            HostError: its writer lives, or it is not ours.
        """
        try:
            return os.read(self._open(0), _MOST_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._error(error) from error

    def forget(self) -> None:
        """Nothing has to be put back any more."""
        self._path.unlink(missing_ok=True)

    def _open(self, flags: int) -> int:
        fd = os.open(self._path, flags | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self._file.callback(os.close, fd)
        if os.fstat(fd).st_uid != os.geteuid():
            raise HostError(f"{self._path.name}: not a journal of this user; remove it")
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return fd

    def _error(self, error: OSError) -> HostError:
        if isinstance(error, BlockingIOError | FileExistsError):
            return HostError(
                f"another kvmenc is reading this QEMU's log ({self._path.name}); wait for it"
            )
        return HostError(f"{self._path.name}: {errno_name(error.errno or 0)}")
