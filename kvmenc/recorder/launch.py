"""Starts a program that we trace from its first system call on."""

from __future__ import annotations

import os
import platform
import signal
import socket
from typing import TYPE_CHECKING, NamedTuple, NoReturn

from fakekvm.supervisor.launch import ERRNO, exec_errno, program_path
from kvmenc import uapi
from kvmenc.errors import HostError, errno_name
from kvmenc.recorder.filter import install
from kvmenc.recorder.foreign import descriptor_of
from kvmenc.tracee import ptrace

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Launched", "launch"]

_OPTIONS = (
    uapi.PTRACE_O_TRACESYSGOOD
    | uapi.PTRACE_O_TRACEFORK
    | uapi.PTRACE_O_TRACEVFORK
    | uapi.PTRACE_O_TRACECLONE
    | uapi.PTRACE_O_TRACEEXEC
    | uapi.PTRACE_O_TRACESECCOMP
    | uapi.PTRACE_O_EXITKILL
)
_FAILED = 127


class Launched(NamedTuple):
    """A program that was started.

    Attributes:
        pid: its process, which we trace.
        line: where an errno comes if it could not be executed, else nothing.
    """

    pid: int
    line: socket.socket

    def exec_errno(self) -> int:
        """What executing it failed with; 0: it was executed. Waits until that is known."""
        return exec_errno(self.line)


def launch(command: Sequence[str]) -> Launched:
    """Start a program.

    Raises:
        HostError: this machine cannot do it, or does not let us.
        FileNotFoundError: there is no such command.
        PermissionError: it is none that we may execute.
    """
    if platform.machine() != "x86_64":
        raise HostError(f"programs are recorded on x86-64 only, and this is {platform.machine()}")
    path = program_path(command[0])
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        _become(path, command, theirs)
    theirs.close()
    try:
        _trace(pid)
    except BaseException:
        ours.close()  # it waits for our go, and ends
        os.waitpid(pid, 0)
        raise
    ours.send(b"!")
    return Launched(pid, ours)


def _trace(pid: int) -> None:
    """All that will be needed, tried where it harms nobody."""
    try:
        ptrace.seize(pid, _OPTIONS)
        os.close(descriptor_of(pid, 2))
    except OSError as error:
        name = errno_name(error.errno or 0)
        raise HostError(
            f"a program that we start cannot be traced: {name}: it needs Linux 5.6 or newer"
            " (pidfd_getfd), kernel.yama.ptrace_scope below 3, no sandbox that forbids ptrace, and"
            " nobody who traces us already"
        ) from error


def _become(path: str, command: Sequence[str], line: socket.socket) -> NoReturn:
    """In the child. It is traced when the go comes; without us nobody could let it run."""
    try:
        for number in (signal.SIGPIPE, signal.SIGXFSZ):  # ignored by Python only
            signal.signal(number, signal.SIG_DFL)
        if line.recv(1):
            install()
            os.execv(path, list(command))
    except OSError as error:
        line.send(ERRNO.pack(error.errno or 0))
    finally:
        os._exit(_FAILED)
