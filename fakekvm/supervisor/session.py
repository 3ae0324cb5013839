"""Runs a program, and whatever it starts, on a fake machine."""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from fakekvm.supervisor.filter import program
from fakekvm.supervisor.launch import Unavailable, launch
from fakekvm.supervisor.notify import Listener
from fakekvm.supervisor.server import Server

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Sequence

    from fakekvm.machine import Machine
    from fakekvm.supervisor.over import Over

__all__ = ["Unavailable", "run"]

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # as shells have them
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
_SWITCH_S = 1e-4  # how long a running guest keeps other calls waiting for the interpreter


def run(
    command: Sequence[str],
    machine: Machine,
    say: Callable[[str], None],
    over: Over | None = None,
) -> int:
    """Run a command to its end, and to that of all processes that came of it.

    For a process that does nothing else: it waits for all its children and changes its signals.

    Args:
        command: the program and its arguments.
        machine: answers for /dev/kvm and /dev/sev.
        say: prints a message for people.
        over: if the machine is laid over a real /dev/kvm: how.

    Returns:
        The command's exit status, or 128 and the number of the signal that ended it; 126 or 127 if
        it cannot be executed.

    Raises:
        Unavailable: this machine's kernel has no seccomp user notification, or forbids it.
    """
    say(over.about if over else _about(machine))
    try:
        launched = launch(command, program(over.requests if over else None))
    except (FileNotFoundError, PermissionError) as error:
        say(f"{error.filename}: {error.strerror}")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
    _prepare(launched.pid)
    reaper = _Reaper(launched.pid)
    listener = Listener(launched.listener)
    Server(listener, machine, say, over).serve()
    status = reaper.status()
    listener.close()
    number = launched.exec_errno()
    if number:
        say(f"{command[0]}: {os.strerror(number)}")
        return _NOT_EXECUTABLE
    for line in [*_unknown_lines(machine.unknown), *machine.faults.lines()]:
        say(line)
    return status


def _about(machine: Machine) -> str:
    return f"KVM_RUN runs a scripted guest, never the program's code: {machine.scripts.about}"


def _prepare(pid: int) -> None:
    """Be in nobody's way: signals of the terminal are for the program, which gets them itself."""
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGIO):
        signal.signal(number, signal.SIG_IGN)
    _pass_signals_on(os.pidfd_open(pid))
    sys.setswitchinterval(_SWITCH_S)
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _pass_signals_on(pidfd: int) -> None:
    """Give the program what is sent to us. Not by the main thread, which waits for calls."""
    here, there = socket.socketpair()
    there.setblocking(False)
    signal.set_wakeup_fd(there.detach())
    for number in _PASSED_ON:
        signal.signal(number, lambda _number, _frame: None)

    def pass_on() -> None:
        while numbers := here.recv(16):
            for number in numbers:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, number)

    threading.Thread(target=pass_on, daemon=True).start()


class _Reaper:
    """Waits for all children, orphans that came to us too."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._status = 0
        self._thread = threading.Thread(target=self._wait, daemon=True)
        self._thread.start()

    def status(self) -> int:
        """The first child's, as a shell tells it. Waits until all have ended."""
        self._thread.join()
        code = os.waitstatus_to_exitcode(self._status)
        return 128 - code if code < 0 else code

    def _wait(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, 0)
            except ChildProcessError:
                return
            if pid == self._pid:
                self._status = status


def _unknown_lines(unknown: Counter[tuple[str, int]]) -> list[str]:
    """What the program asked for in vain."""
    return [
        f"unknown ioctl: {request:#x} on a file of kind {kind} ({count} times)"
        for (kind, request), count in sorted(unknown.items())
    ]
