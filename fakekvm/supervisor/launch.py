"""Starts a program whose system calls come to us, from its first one on."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import signal
import socket
import struct
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from fakekvm.supervisor.notify import install_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["ERRNO", "Launched", "Unavailable", "exec_errno", "launch", "program_path"]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
ERRNO = struct.Struct("<i")  # what a child tells that could not execute a program
_FAILED = 127  # what a shell's status is for a command that cannot be started

_libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """Programs' system calls cannot be answered on this machine."""


class Launched(NamedTuple):
    """A program that was started.

    Attributes:
        pid: its process.
        listener: where its calls arrive, a descriptor.
        line: where an errno comes if it could not be executed, else nothing.
    """

    pid: int
    listener: int
    line: socket.socket

    def exec_errno(self) -> int:
        """What executing it failed with; 0: it was executed. Waits until that is known."""
        return exec_errno(self.line)


def exec_errno(line: socket.socket) -> int:
    """The errno that comes from a child; 0 if it ends, or executes a program. Closes the line."""
    with line:
        told = line.recv(ERRNO.size)
    return int(ERRNO.unpack(told)[0]) if told else 0


def launch(command: Sequence[str], filter_: bytes) -> Launched:
    """Start a program; from now on orphans of ours come to us.

    Args:
        command: it, and its arguments.
        filter_: which of its system calls come to us.

    Raises:
        Unavailable: the kernel cannot do it, or does not let us.
        FileNotFoundError: there is no such command.
        PermissionError: it is none that we may execute.
    """
    if platform.machine() != "x86_64":
        raise Unavailable(f"programs are run on x86-64 only, and this is {platform.machine()}")
    path = program_path(command[0])
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, ctypes.c_ulong(1), 0, 0, 0)
    ours, theirs = socket.socketpair()
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(partial(os.execv, path, list(command)), filter_, theirs, parent)
    theirs.close()
    try:
        return Launched(pid, _listener(ours, pid), ours)
    except BaseException:
        ours.close()  # it waits for our go, and ends
        os.waitpid(pid, 0)
        raise


def program_path(name: str) -> str:
    """Where a command is: what is to be looked up has to be before a filter is there.

    Raises:
        FileNotFoundError: there is no such command.
        PermissionError: it is none that we may execute.
    """
    path = shutil.which(name)
    if path is not None:
        return path
    if os.sep in name and Path(name).exists():
        raise PermissionError(errno.EACCES, "this is no program that we may execute", name)
    raise FileNotFoundError(errno.ENOENT, "there is no such command", name)


def _listener(line: socket.socket, pid: int) -> int:
    told, fds, _flags, _address = socket.recv_fds(line, ERRNO.size, 1)
    if not fds:
        raise Unavailable(_why(ERRNO.unpack(told)[0] if told else 0))
    try:
        os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
    except OSError as error:
        os.close(fds[0])
        raise Unavailable(
            f"the memory of a program that we start cannot be read: {error.strerror}: is"
            " kernel.yama.ptrace_scope 2 or more?"
        ) from error
    line.send(b"!")
    return fds[0]


def _why(number: int) -> str:
    if number == errno.EBUSY:
        return "this runs under seccomp notification already: in another fakekvm, or a container's"
    name = errno.errorcode.get(number, str(number))
    return (
        f"seccomp user notification is not to be had ({name}): it needs Linux 5.19 or newer"
        " (SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), and no sandbox that forbids seccomp(2)"
    )


def _become(
    execute: Callable[[], NoReturn], filter_: bytes, line: socket.socket, parent: int
) -> NoReturn:
    """In the child. Once the filter is there nothing may be opened or imported before exec."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python only
            signal.signal(number, signal.SIG_DFL)
        # Without us it could not go on: its /dev/kvm is gone, as in a crash of the machine.
        _libc.prctl(_PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
        if os.getppid() == parent:
            _hand_over(line, filter_)
            if line.recv(1):
                execute()
    except OSError as error:
        line.send(ERRNO.pack(error.errno or 0))
    finally:
        os._exit(_FAILED)


def _hand_over(line: socket.socket, filter_: bytes) -> None:
    listener = install_filter(filter_)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", listener))
    line.sendmsg([ERRNO.pack(0)], [rights])
    os.close(listener)
