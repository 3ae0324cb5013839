"""Where a log of ours and its journal lie: QEMU may write there; their names tell its process."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Self

from kvmenc import procfs
from kvmenc.errors import HostError, errno_name
from kvmenc.qemu.log import command_line

__all__ = ["LogPlace"]

# libvirt lets its QEMU write into the domain's own folder and nearly nowhere else; it keeps a key
# there, which is on the command line (libvirt v11.3, src/security/virt-aa-helper.c, and
# src/qemu/qemu_process.c, qemuSecurityDomainSetPathLabel).
_LIBVIRT_KEY = re.compile(r'file(?:=|":")(/[^,"]+)/master-key\.aes')


class LogPlace:
    """The files for one process, called by its number and when it started; a context manager.

    The folder is held open: the files can be removed when the process has gone.

    Args:
        pid: the process.

    Attributes:
        name: of the log, to QEMU: in its own mount namespace.
        log: the same file, to this process.
        journal: beside it.

    Raises:
        HostError: there is no such process, or its folder cannot be opened.
    """

    def __init__(self, pid: int) -> None:
        key = _LIBVIRT_KEY.search("\n".join(command_line(pid)))
        folder = key[1] if key else "/tmp"
        stem = _stem(pid)
        self.name = f"{folder}/{stem}.log"
        try:
            self._fd = os.open(f"/proc/{pid}/root{folder}", os.O_PATH | os.O_DIRECTORY)
        except OSError as error:
            raise HostError(
                f"{folder}, as process {pid} sees it: {errno_name(error.errno or 0)}"
            ) from error
        seen = Path(f"/proc/self/fd/{self._fd}")
        self.log, self.journal = seen / f"{stem}.log", seen / f"{stem}.journal"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        os.close(self._fd)

    def is_of(self, pid: int) -> bool:
        """The process lives, and is not a later one of its number."""
        try:
            return self.journal.stem == _stem(pid)
        except HostError:
            return False

    def make_log(self, pid: int) -> None:
        """An empty file that QEMU may write, whomever it runs as."""
        ids = [int((procfs.status_field(pid, it) or "0 0 0 0").split()[3]) for it in ("Uid", "Gid")]
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.log, flags, 0o600)
            try:
                os.fchown(fd, *ids)
            finally:
                os.close(fd)
        except OSError as error:
            raise HostError(f"{self.name}: {errno_name(error.errno or 0)}") from error


def _stem(pid: int) -> str:
    return f"kvmenc-{pid}-{procfs.start_ticks(pid)}"
