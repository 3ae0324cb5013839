"""Answers the system calls of the programs that run on the fake."""

from __future__ import annotations

import errno
import os
import traceback
from functools import partial
from typing import TYPE_CHECKING

from fakekvm.calls import Caller
from fakekvm.decode import KVM_CREATE_VM, KVM_RUN, U32
from fakekvm.machine import KVM_PATH, SEV_PATH
from fakekvm.sevdecode import KVM_MEMORY_ENCRYPT_OP, SEV_ISSUE_CMD
from fakekvm.supervisor.files import Files
from fakekvm.supervisor.filter import Nr
from fakekvm.supervisor.lanes import Lanes
from fakekvm.supervisor.pathcalls import asked_by
from fakekvm.supervisor.tasks import SignalWatch, Tasks

if TYPE_CHECKING:
    from collections.abc import Callable

    from fakekvm.calls import File
    from fakekvm.machine import Machine
    from fakekvm.supervisor.notify import Listener, Notification
    from fakekvm.supervisor.over import Over
    from fakekvm.supervisor.tasks import Task

__all__ = ["Server"]

#: Carried out apart, so that other calls need not wait for them.
_LASTING = frozenset((KVM_RUN, KVM_MEMORY_ENCRYPT_OP))
#: What they answer depends on the VMs that there still are.
_SWEPT_BEFORE = frozenset((KVM_CREATE_VM, SEV_ISSUE_CMD))


class Server:
    """Answers for a machine; what is none of the fake's business the kernel carries out.

    Args:
        listener: where the calls arrive.
        machine: what answers.
        say: tells people of a mistake in the fake itself.
        over: if the machine is laid over a real one: what of it is answered.
    """

    def __init__(
        self,
        listener: Listener,
        machine: Machine,
        say: Callable[[str], None],
        over: Over | None = None,
    ) -> None:
        self._listener = listener
        self._machine = machine
        self._say = say
        self._over = over
        self._devices = over.devices if over else frozenset((KVM_PATH, SEV_PATH))
        self._files = Files()
        self._tasks = Tasks(self._files)
        self._lanes = Lanes()

    def serve(self) -> None:
        """Until no program is left."""
        while (call := self._listener.receive()) is not None:
            try:
                self._serve(call)
            except Exception:
                self._mistake(call)
        self._files.close_all()

    def _serve(self, call: Notification) -> None:
        if call.nr == Nr.IOCTL:
            self._ioctl(call)
        elif call.nr in (Nr.EXECVE, Nr.EXECVEAT):
            self._sweep()
            self._tasks.executes(call.tid)
            self._listener.let_pass(call)
        else:
            self._path_call(call)

    def _path_call(self, call: Notification) -> None:
        try:
            asked = asked_by(call)
        except OSError:
            asked = None  # the kernel will find the same, and say it as it is to be said
        is_ours = asked is not None and asked.device in self._devices
        if asked is None or not is_ours or not self._listener.is_waiting(call):
            self._listener.let_pass(call)
            return
        self._sweep()
        self._answer(call, asked.flags, asked.answer, self._machine)

    def _ioctl(self, call: Notification) -> None:
        request = call.arg1 & U32
        if request in _SWEPT_BEFORE:
            self._sweep()
        try:
            task, file = self._find(call)
        except OSError:  # no such descriptor, or a process that may not be looked into
            self._listener.let_pass(call)
            return
        if file is None:
            self._listener.let_pass(call)
            return
        if request not in _LASTING and self._lanes.is_free(file):
            self._carry_out(call, file, task.process.caller)
            return
        watch = SignalWatch(task, partial(self._listener.is_waiting, call))
        caller = Caller(task.process, watch.is_signalled)
        self._lanes.add(file, partial(self._carry_out, call, file, caller))

    def _find(self, call: Notification) -> tuple[Task, File | None]:
        """Who asks, and the file that answers; None: none of the fake's."""
        task, file = self._tasks.locate(call.tid, call.arg0 & U32)
        if file is None and self._over is not None:
            file = self._over.file_of(call, task)
        return task, file

    def _carry_out(self, call: Notification, file: File, caller: Caller) -> None:
        arguments = (file, call.arg1 & U32, call.arg2, caller)
        self._answer(call, os.O_CLOEXEC, self._machine.carry_out, *arguments)

    def _answer(
        self, call: Notification, flags: int, find: Callable[..., int | File], *arguments: object
    ) -> None:
        """Answer with what ``find`` returns, or fails with."""
        try:
            result = find(*arguments)
            if isinstance(result, int):
                self._listener.answer(call, result)
            else:
                self._give(call, result, flags & os.O_CLOEXEC)
        except OSError as error:
            self._listener.fail(call, error.errno or errno.EIO)
        except Exception:
            self._mistake(call)

    def _mistake(self, call: Notification) -> None:
        """In an exception that should not be. The program must not wait for ever."""
        self._say(f"a mistake in the fake, answered with EIO:\n{traceback.format_exc()}")
        self._listener.fail(call, errno.EIO)

    def _give(self, call: Notification, file: File, flags: int) -> None:
        fd = self._files.give(file)
        try:
            self._listener.answer_with_fd(call, fd, flags)
        finally:
            os.close(fd)

    def _sweep(self) -> None:
        """Close what nobody holds: done before somebody could tell the difference."""
        over = self._over.sweep() if self._over else []
        for file in (*self._files.sweep(), *over):
            self._lanes.end(file)
