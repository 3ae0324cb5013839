"""QEMU's own log: read where it goes, or sent to a file of ours for a while and then back.

What was found in QEMU v7.2 and v10.0, util/log.c and monitor/hmp-cmds.c, and by trying it:

- No command tells where the log goes. ``-D`` and the monitor's ``logfile`` open a file with fopen,
  which alone of all that QEMU opens is not closed on exec; without them it is stderr.
- ``logfile FILE`` appends in 7.2 and truncates in 10.0. So a regular file is never opened anew:
  the log stays there, and is read from where it ends.
- ``logfile`` cannot name stderr (an empty name is an error that closes the log), but
  ``/proc/self/fd/2`` can be opened again where it is a pipe, a terminal or /dev/null.
- Of a daemon, ``logfile`` replaces stderr itself.
- If a file cannot be opened, the log that was is closed all the same.
- ``log`` items (``-d``) play no part: with the trace backend ``log``, traced events are always on.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvmenc import procfs
from kvmenc.errors import HostError, errno_name
from kvmenc.qemu.text import MAX_TEXT_BYTES

if TYPE_CHECKING:
    from kvmenc.qemu.monitor import Monitor

__all__ = ["Tail", "command_line", "send_log_back", "send_log_to", "writable_files"]

_STDERR = "/proc/self/fd/2"


@dataclass(frozen=True, slots=True)
class Tail:
    """What is written to a file from some byte on.

    Attributes:
        path: the file.
        offset: of the first byte.
    """

    path: Path
    offset: int

    def lines(self) -> list[str]:
        """Whole lines so far; of a log that grows beyond 16 MiB, the first of them.

        Raises:
            HostError: the file cannot be read.
        """
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                content = file.read(MAX_TEXT_BYTES)
        except OSError as error:
            raise HostError(f"QEMU's log {self.path}: {error.strerror}") from error
        return content.decode(errors="replace").split("\n")[:-1]


def writable_files(pid: int) -> list[Tail]:
    """The ends of the files that may be QEMU's log, its stderr among them.

    Raises:
        HostError: the process may not be looked into.
    """
    tails = []
    for fd in procfs.fd_links(pid):
        path = Path(f"/proc/{pid}/fd/{fd}")
        try:
            info = path.stat()
            flags = re.search(r"flags:\s*([0-7]+)", Path(f"/proc/{pid}/fdinfo/{fd}").read_text())
        except OSError:
            continue  # closed in between
        opened = int(flags[1], 8) if flags else 0
        if stat.S_ISREG(info.st_mode) and opened & os.O_ACCMODE and not opened & os.O_CLOEXEC:
            tails.append(Tail(path, info.st_size))
    return tails


def command_line(pid: int) -> list[str]:
    """The arguments that a process was started with.

    Raises:
        HostError: there is no such process.
    """
    try:
        content = Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError as error:
        raise HostError(f"there is no process {pid}") from error
    return content.decode(errors="surrogateescape").split("\0")


def send_log_to(monitor: Monitor, path: str) -> str:
    """Have QEMU log to a file, by its name in QEMU's own mount namespace; returns its complaint."""
    name = path.replace("\\", "\\\\").replace('"', '\\"')
    return monitor.monitor(f'logfile "{name}"').content.strip()


def send_log_back(monitor: Monitor, pid: int, stderr: str) -> str:
    """Have QEMU log to its stderr again.

    Where that cannot be opened again (a socket), the log ends in /dev/null: the caller has made
    sure before that nothing is being logged.

    Args:
        monitor: of the QEMU.
        pid: its process.
        stderr: what it was: as /proc links it.

    Returns:
        QEMU's complaint if it can open neither; mostly empty.

    Raises:
        HostError: QEMU does not answer.
    """
    is_there = procfs.fd_links(pid).get(2) == stderr
    complaint = send_log_to(monitor, _STDERR if is_there else stderr)
    if complaint and stderr.startswith("pipe:"):
        complaint = _through_pipe(monitor, pid)
    return complaint and send_log_to(monitor, "/dev/null")


def _through_pipe(monitor: Monitor, pid: int) -> str:
    """A pipe made by another user, as libvirt's is: QEMU needs the right to open it anew.

    A pipe has no name: only who may look into a process that has it can open it.
    """
    path = Path(f"/proc/{pid}/fd/2")
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        path.chmod(mode | stat.S_IWOTH)
    except OSError as error:
        return errno_name(error.errno or 0)
    try:
        return send_log_to(monitor, _STDERR)
    finally:
        path.chmod(mode)
