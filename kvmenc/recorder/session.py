"""Runs a program on the real KVM, and keeps what it was answered."""

from __future__ import annotations

import os
import signal
import stat
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from kvmenc import package_version
from kvmenc.atomic import check_writable
from kvmenc.backend.machine import read_machine
from kvmenc.backend.recordkeeper import Keeper
from kvmenc.backend.recordmodel import Header
from kvmenc.errors import InputError
from kvmenc.recorder.launch import launch
from kvmenc.recorder.loop import Loop
from kvmenc.recorder.watch import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from kvmenc.recorder.launch import Launched

__all__ = ["MOST_RUNS", "record"]

#: KVM_RUN of each vCPU that are kept; a QEMU makes thousands a second.
MOST_RUNS = 10_000
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # as shells have them
_PASSED_ON = (signal.SIGTERM, signal.SIGHUP)
_ELFCLASS32 = 1


def record(
    command: Sequence[str], file: Path, *, contents: bool, say: Callable[[str], None]
) -> int:
    """Run a command to its end, and to that of all processes that came of it.

    For a process that does nothing else: it waits for all its children and changes its signals.

    Args:
        command: the program and its arguments.
        file: where the recording goes; not written if KVM was asked nothing.
        contents: keep secrets and what guests hold too.
        say: prints a message for people.

    Returns:
        The command's exit status, or 128 and the number of the signal that ended it; 126 or 127 if
        it cannot be executed.

    Raises:
        HostError: this machine cannot trace programs, or does not let us.
        RecordingError: the file cannot be written.
        InputError: no file can be written there.
    """
    try:
        check_writable(file)
    except OSError as error:
        raise InputError(f"{file}: no recording can be kept there: {error.strerror}") from error
    keeper = _keeper(contents=contents)
    try:
        launched = launch(command)
    except (FileNotFoundError, PermissionError) as error:
        say(f"{error.filename}: {error.strerror}")
        return _NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE
    _prepare(launched.pid)
    status = _followed(launched, keeper, say)
    if number := launched.exec_errno():
        say(f"{command[0]}: {os.strerror(number)}")
        return _NOT_EXECUTABLE
    _save(keeper, file, say)
    return status


def _keeper(*, contents: bool) -> Keeper:
    header = Header(
        kvmenc_version=package_version(),
        backend="local",
        fake=False,
        contents=contents,
        machine=read_machine(Path("/")),
    )
    return Keeper(header, most_runs=MOST_RUNS, cut=True)


def _followed(launched: Launched, keeper: Keeper, say: Callable[[str], None]) -> int:
    watch = Watch(keeper, launched.pid)
    loop = Loop(launched.pid, watch, say, lambda pid: _warn(pid, say))
    code = os.waitstatus_to_exitcode(loop.run())
    return 128 - code if code < 0 else code


def _prepare(pid: int) -> None:
    """Be in nobody's way: signals of the terminal are for the program, which gets them itself."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in _PASSED_ON:
        signal.signal(number, lambda got, _frame: _pass_on(pid, got))


def _pass_on(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _warn(pid: int, say: Callable[[str], None]) -> None:
    """Say of a program that is executed what will be missing, or different."""
    path = Path(f"/proc/{pid}/exe")
    with suppress(OSError):
        status = path.stat()
        with path.open("rb") as file:
            head = file.read(5)
        if head[:4] == b"\x7fELF" and head[4] == _ELFCLASS32:
            say(f"{path.readlink()} is a 32-bit program: what it asks is not recorded")
        if status.st_mode & stat.S_ISUID and status.st_uid != os.geteuid():
            say(f"{path.readlink()} runs without its set-uid rights, as whoever calls it")


def _save(keeper: Keeper, file: Path, say: Callable[[str], None]) -> None:
    if not keeper.calls:
        say(f"KVM was asked nothing that could be seen, so {file} is not written")
        return
    keeper.save(file)
    say(f"{file}: {keeper.calls} call{'' if keeper.calls == 1 else 's'}")
    if keeper.left_out:
        say(f"{file} is full: {keeper.left_out} later calls are not in it")
