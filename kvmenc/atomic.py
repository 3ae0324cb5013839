"""Write a file so that there is the old one or the whole new one, and never anything else.

A file without a name (O_TMPFILE) is written, flushed, and only then given its name: whoever dies
before has left nothing behind. A name cannot be given over an old file in one step; there the new
file is called ``.NAME.*.part`` for the moment between two system calls.

Where there is nothing to replace, bytes go as they come: into a FIFO or a device such as /dev/null,
and through a descriptor of this process that is called /dev/stdout or /dev/fd/3. As root, a rename
over one of these names would take it away from everyone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["check_writable", "names_stdout", "write_atomically"]

# man 2 open, O_TMPFILE: what file systems and kernels without it answer.
_NO_TMPFILE = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
# Linux follows no more (path_resolution(7)).
_MOST_LINKS = 40
_STDOUT = 1


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Let ``write`` write a file, then make it ``path``, or what ``path`` is a symbolic link to.

    Raises:
        OSError: it cannot be done, and a regular file at ``path`` is as it was; or ``path`` is a
            folder, a disk or a socket.
    """
    number = _descriptor_called(path)
    if number is not None:
        with open(os.dup(number), "wb") as file:  # noqa: PTH123 - opened anew it would be cut off
            write(file)
        return
    place = Path(os.path.realpath(path))
    if _is_special(place):
        with place.open("wb") as file:
            write(file)
    else:
        _write_whole(place, write)


def check_writable(path: Path) -> None:
    """Whether ``write_atomically`` can begin; to be asked before what takes long.

    Raises:
        OSError: it cannot.
    """
    number = _descriptor_called(path)
    if number is not None:
        os.fstat(number)
        return
    place = Path(os.path.realpath(path))
    if _is_special(place):
        if not os.access(place, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return
    fd = _nameless_file(place.parent)
    if fd is not None:
        os.close(fd)
        return
    with _part_of(place) as part:
        part.touch()
        part.unlink()


def names_stdout(*paths: Path | None) -> bool:
    """Whether what is written to one of these comes out with what this process prints."""
    return any(_descriptor_called(it) == _STDOUT for it in paths if it)


def _descriptor_called(path: Path) -> int | None:
    """The descriptor of this process that ``path`` is a name of, by way of links; None: of none."""
    own = os.path.realpath("/proc/self/fd")
    for _ in range(_MOST_LINKS):
        if path.name.isdecimal() and os.path.realpath(path.parent) == own:
            return int(path.name)
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _is_special(place: Path) -> bool:
    """A FIFO or a device of characters, into which bytes just go.

    Raises:
        OSError: what is there can be neither written into nor replaced.
    """
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        raise FileExistsError(errno.EEXIST, "what is there is no regular file")
    return not stat.S_ISREG(mode)


def _write_whole(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = _nameless_file(path.parent)
        if fd is None:
            _write_beside(path, write)
        else:
            with open(fd, "w+b") as file:  # noqa: PTH123 - it has no path
                _write_and_flush(file, write, path)
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


def _write_and_flush(file: IO[bytes], write: Callable[[IO[bytes]], object], path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):  # what only its owner may read stays so
        os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode))
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
            _write_and_flush(file, write, path)
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
