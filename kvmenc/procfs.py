"""What /proc says about a process: its mappings, file descriptors, threads and state.

Nothing here touches the process. Source: Linux v6.12, Documentation/filesystems/proc.rst.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from kvmenc.errors import HostError, NotPermitted, errno_name

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "Mapping",
    "NoProcess",
    "fd_links",
    "mappings",
    "no_permission",
    "start_ticks",
    "state",
    "status",
    "status_field",
    "tgid_of",
    "thread_ids",
    "thread_syscall",
]

_YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")


class NoProcess(HostError):
    """There is no such process or thread, or no longer."""


@dataclass(frozen=True, slots=True)
class Mapping:
    """One line of /proc/PID/maps.

    Attributes:
        start: its first address.
        end: the first address after it.
        perms: such as ``rw-p``; the last letter is ``p`` for private, ``s`` for shared.
        offset: where it starts in its file, in bytes.
        device: the file's device, such as ``08:01``; ``00:00`` for anonymous memory.
        inode: the file's; 0 for anonymous memory.
        path: the file; ``[stack]`` and the like; empty for anonymous memory.
    """

    start: int
    end: int
    perms: str
    offset: int
    device: str
    inode: int
    path: str

    @classmethod
    def parse(cls, line: str) -> Mapping:
        """Read one line."""
        span, perms, offset, device, inode, *path = line.split(maxsplit=5)
        start, _, end = span.partition("-")
        return cls(
            int(start, 16),
            int(end, 16),
            perms,
            int(offset, 16),
            device,
            int(inode),
            path[0] if path else "",
        )


def mappings(pid: int) -> list[Mapping]:
    """All mappings of a process, by ascending address.

    Raises:
        HostError: no such process; not permitted.
    """
    with _explained(pid, "maps"):
        return [Mapping.parse(line) for line in _lines(pid, "maps")]


def fd_links(pid: int) -> dict[int, str]:
    """What each file descriptor of a process is: a path, or such as ``anon_inode:kvm-vm``.

    Raises:
        HostError: no such process; not permitted.
    """
    links = {}
    with _explained(pid, "fd"):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            try:
                links[int(entry.name)] = str(Path(entry.path).readlink())
            except FileNotFoundError:
                continue  # closed in between
    return links


def thread_ids(pid: int) -> list[int]:
    """The ids of a process's threads, ascending.

    Raises:
        HostError: no such process.
    """
    with _explained(pid, "task"):
        return sorted(int(entry.name) for entry in os.scandir(f"/proc/{pid}/task"))


def start_ticks(pid: int) -> int:
    """When the process started, in clock ticks since boot: tells it from a later one of its pid.

    Raises:
        HostError: no such process.
    """
    with _explained(pid, "stat"):
        return int(_stat(pid)[19])


def state(tid: int) -> str:
    """One letter: ``R`` running, ``S`` asleep, ``T`` stopped, ``t`` held by a tracer, ``Z`` dead.

    Raises:
        HostError: no such process or thread.
    """
    with _explained(tid, "stat"):
        return _stat(tid)[0]


def tgid_of(tid: int) -> int:
    """The process that a thread belongs to; a process id belongs to itself.

    Raises:
        HostError: no such thread.
    """
    with _explained(tid, "status"):
        return int(status(tid)["Tgid"])


def status(tid: int) -> dict[str, str]:
    """The lines of /proc/PID/status by their names, such as ``TracerPid``.

    Raises:
        HostError: no such process or thread.
    """
    lines = (line.partition(":") for line in _lines(tid, "status"))
    return {key: value.strip() for key, _, value in lines}


def status_field(pid: int, name: str) -> str | None:
    """One of them; None: this kernel has none of that name.

    Raises:
        HostError: no such process or thread.
    """
    return status(pid).get(name)


def thread_syscall(tid: int) -> list[int] | None:
    """The system call that a thread sleeps in: number, six arguments, stack pointer, instruction.

    The number is -1, without arguments, for a thread that sleeps otherwise; None: it runs.

    Raises:
        HostError: no such thread; not permitted.
    """
    text = _read(tid, "syscall")
    with _explained(tid, "syscall"):
        return None if text.startswith("running") else [int(word, 0) for word in text.split()]


def no_permission(pid: int, what: str) -> NotPermitted:
    """The error for a process that may not be traced, and what would permit it.

    Args:
        pid: the process.
        what: the file or system call that was refused, and its errno.
    """
    try:
        scope = f" (now {_YAMA.read_text().strip()})"
    except OSError:
        scope = ""
    return NotPermitted(
        f"process {pid} may not be looked into: {what}: run as root or with CAP_SYS_PTRACE, or as"
        f" the process's own user where kernel.yama.ptrace_scope is 0{scope}"
    )


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, which may hold spaces and parentheses."""
    return _read(pid, "stat").rpartition(")")[2].split()


def _lines(pid: int, name: str) -> list[str]:
    """Its lines, if any: ``str.splitlines`` would break names where the kernel does not."""
    return [line for line in _read(pid, name).split("\n") if line]


def _read(pid: int, name: str) -> str:
    with _explained(pid, name):
        return Path(f"/proc/{pid}/{name}").read_text(errors="surrogateescape")


@contextmanager
def _explained(pid: int, name: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ProcessLookupError) as error:
        raise NoProcess(f"there is no process {pid}") from error
    except PermissionError as error:
        why = errno_name(error.errno or errno.EACCES)
        raise no_permission(pid, f"/proc/{pid}/{name}: {why}") from error
    except (ValueError, LookupError) as error:
        raise HostError(
            f"/proc/{pid}/{name}: not as Linux writes it: {str(error)[:80]!a}"
        ) from error
