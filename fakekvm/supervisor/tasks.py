"""The processes and threads that make calls, as /proc shows them."""

from __future__ import annotations

import errno
import os
import re
import time
from typing import TYPE_CHECKING

from fakekvm.calls import Caller
from fakekvm.errors import oserror
from fakekvm.processmemory import ProcessMemory

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm.calls import File
    from fakekvm.supervisor.files import Files

__all__ = ["Process", "SignalWatch", "Task", "Tasks"]

_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_WATCH_S = 0.001
_MANY = 256


class Process:
    """A process until it executes another program: one address space.

    Attributes:
        memory: its memory.
        caller: it, as the maker of calls that do not last.
        may_be_gone: it was about to execute another program; that may have failed.
    """

    def __init__(self, pid: int, files: Files) -> None:
        self.memory = ProcessMemory(pid)
        self.caller = Caller(self)
        self.may_be_gone = False
        self._files = files
        self._folder = os.open(f"/proc/{pid}", _FOLDER)
        self._mem = os.open("mem", os.O_RDONLY, dir_fd=self._folder)

    def is_there(self) -> bool:
        """Whether the address space is still in use.

        A descriptor of /proc/PID/mem stays with the one that it was opened for. While somebody
        uses that, reading at 0 is EIO, as nothing is mapped there; then it is the end of the file.
        Source: Linux v6.12, fs/proc/base.c, mem_rw.
        """
        try:
            return os.pread(self._mem, 1, 0) != b""
        except OSError as error:
            return error.errno == errno.EIO

    def file_of(self, fd: int) -> File | None:
        """By its table of descriptors.

        Raises:
            OSError: EBADF.
        """
        try:
            return self._files.find(os.stat(f"fd/{fd}", dir_fd=self._folder))
        except OSError as error:
            raise oserror(errno.EBADF) from error

    def forget(self) -> None:
        """It is not there any more."""
        os.close(self._folder)
        os.close(self._mem)
        self._folder = self._mem = -1


class Task:
    """A thread.

    Attributes:
        tid: its number.
        folder: its directory in /proc, which shows nothing once it is gone, whoever has its number.
        process: that it is a thread of.
    """

    def __init__(self, tid: int, folder: int, process: Process) -> None:
        self.tid = tid
        self.folder = folder
        self.process = process

    def is_there(self) -> bool:
        """Whether it still runs."""
        try:
            os.stat("stat", dir_fd=self.folder)
        except OSError:
            return False
        return True


class Tasks:
    """The threads that have made calls."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._tasks: dict[int, Task] = {}
        self._processes: dict[int, Process] = {}
        self._enough = _MANY

    def locate(self, tid: int, fd: int) -> tuple[Task, File | None]:
        """The thread of this number, and the file behind one of its descriptors; None: not ours.

        Raises:
            OSError: it may not be looked into; it has no such descriptor.
        """
        task = self._tasks.get(tid)
        if task is not None and not (task.process.may_be_gone and not task.process.is_there()):
            try:
                return task, self._file(task, fd)
            except OSError:  # maybe a thread that is no more had this number
                pass
        task = self._open(tid)
        return task, self._file(task, fd)

    def executes(self, tid: int) -> None:
        """A thread is about to execute another program."""
        if not self._processes:
            return
        process = self._processes.get(_pid_of(tid))
        if process is not None:
            process.may_be_gone = True

    def _file(self, task: Task, fd: int) -> File | None:
        return self._files.find(os.stat(f"fd/{fd}", dir_fd=task.folder))

    def _open(self, tid: int) -> Task:
        if len(self._tasks) >= self._enough:
            self._prune()
        folder = os.open(f"/proc/{tid}", _FOLDER)
        pid = int(_status(folder)["Tgid"])
        process = self._processes.get(pid)
        if process is None or not process.is_there():
            process = self._processes[pid] = Process(pid, self._files)
        old = self._tasks.pop(tid, None)
        if old is not None:
            os.close(old.folder)
        task = self._tasks[tid] = Task(tid, folder, process)
        return task

    def _prune(self) -> None:
        for tid, task in list(self._tasks.items()):
            if not task.is_there():
                os.close(self._tasks.pop(tid).folder)
        for pid, process in list(self._processes.items()):
            if not process.is_there():
                self._processes.pop(pid).forget()
        self._enough = max(_MANY, 2 * len(self._tasks))


class SignalWatch:
    """Whether a thread that waits in KVM_RUN has to leave it.

    The kernel would end KVM_RUN for any signal that can be taken; here the thread waits for an
    answer and takes none but a deadly one, so that has to be looked up. That takes some 20 us, so
    it is done once in a millisecond.

    Args:
        task: the thread.
        is_waiting: whether its call still waits.
    """

    def __init__(self, task: Task, is_waiting: Callable[[], bool]) -> None:
        self._task = task
        self._is_waiting = is_waiting
        self._next_s: float | None = None

    def is_signalled(self, mask: int | None) -> bool:
        """Whether a signal waits that is not blocked by ``mask`` (None: by the thread's own).

        With a mask the first look comes at once: signals that were blocked outside can wait.
        """
        now_s = time.monotonic()
        if self._next_s is None and mask is None:
            self._next_s = now_s + _WATCH_S
        if self._next_s is not None and now_s < self._next_s:
            return False
        self._next_s = now_s + _WATCH_S
        return not self._is_waiting() or self._waiting_signals(mask) != 0

    def _waiting_signals(self, mask: int | None) -> int:
        try:
            status = _status(self._task.folder)
        except OSError:
            return -1  # it is gone
        pending, shared, blocked = (int(status[n], 16) for n in ("SigPnd", "ShdPnd", "SigBlk"))
        return (pending | shared) & ~(blocked if mask is None else mask)


def _pid_of(tid: int) -> int:
    """The process of a thread; 0: there is no such thread."""
    try:
        folder = os.open(f"/proc/{tid}", _FOLDER)
    except OSError:
        return 0
    try:
        return int(_status(folder)["Tgid"])
    except OSError:
        return 0
    finally:
        os.close(folder)


_LINE = re.compile(rb"^(\w+):\t(\w*)$", re.MULTILINE)


def _status(folder: int) -> dict[str, str]:
    """The lines of /proc/TID/status that hold one word."""
    fd = os.open("status", os.O_RDONLY | os.O_CLOEXEC, dir_fd=folder)
    try:
        text = os.read(fd, 1 << 14)
    finally:
        os.close(fd)
    return {name.decode(): value.decode() for name, value in _LINE.findall(text)}
