"""Write a file so that there is the old one or the whole new one, and never anything else.

A file without a name (O_TMPFILE) is written, flushed, and only then given its name: whoever dies
before has left nothing behind. A name cannot be given over an old file in one step; there the new
file is called ``.NAME.*.part`` for the moment between two system calls.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["write_atomically"]

# man 2 open, O_TMPFILE: what file systems and kernels without it answer.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` write a file, then make it ``path``.

    Raises:
        OSError: it cannot be done; ``path`` is as it was. What is no regular file, such as
            /dev/null, is never replaced.
    """
    if path.exists() and not path.is_file():
        raise FileExistsError(errno.EEXIST, "what is there is no regular file")
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = _nameless_file(path.parent)
        if fd is None:
            _write_beside(path, write)
        else:
            with open(fd, "w+b") as file:  # noqa: PTH123 - it has no path
                _write_and_flush(file, write)
                _give_name(file, path, directory)
        os.fsync(directory)  # it is the directory that holds the name
    finally:
        os.close(directory)


def _nameless_file(directory: Path) -> int | None:
    """A new file that no directory holds, or None where that cannot be had."""
    if not Path("/proc/self/fd").exists():  # then it could never get a name
        return None
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError as error:
        if error.errno in _NO_TMPFILE:
            return None
        raise


def _write_and_flush(file: IO[bytes], write: Callable[[IO[bytes]], object]) -> None:
    write(file)
    file.flush()
    os.fsync(file.fileno())


def _give_name(file: IO[bytes], path: Path, directory: int) -> None:
    try:
        _link(file, path.name, directory)
    except FileExistsError:
        with _part_of(path) as part:
            _link(file, part.name, directory)
            part.replace(path)


def _link(file: IO[bytes], name: str, directory: int) -> None:
    """linkat(2) with AT_SYMLINK_FOLLOW, which os.link passes on only beside a directory."""
    os.link(f"/proc/self/fd/{file.fileno()}", name, dst_dir_fd=directory, follow_symlinks=True)


def _write_beside(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    with _part_of(path) as part:
        with part.open("xb") as file:
            _write_and_flush(file, write)
        part.replace(path)


@contextlib.contextmanager
def _part_of(path: Path) -> Iterator[Path]:
    """A name beside ``path``; whatever has it is removed if something goes wrong."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
    except BaseException:
        with contextlib.suppress(OSError):
            part.unlink()
        raise
