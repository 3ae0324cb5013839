"""QEMU's trace events and log, used for a while: put back at the end, even of a killed kvmenc.

What was before is written to a journal first, and only then is anything changed. The journal's name
tells the process, so the next kvmenc finds it.
"""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING, Self

import msgspec

from kvmenc import procfs
from kvmenc.errors import HostError, KvmencError
from kvmenc.qemu.journal import Journal
from kvmenc.qemu.log import Tail, command_line, send_log_back, send_log_to, writable_files
from kvmenc.qemu.logplace import LogPlace
from kvmenc.qemu.monitor import ask

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kvmenc.qemu.monitor import Monitor

__all__ = ["BorrowedLog", "recover"]

# Traced for every QMP command: shows where the log goes, and that there is one.
_PROBE = "handle_qmp_command"


class _Event(msgspec.Struct):
    name: str
    state: str


class _Before(msgspec.Struct):
    """What has to be put back.

    Attributes:
        events: those that were off.
        stderr: what QEMU's stderr was, as /proc links it.
    """

    events: list[str]
    stderr: str


class BorrowedLog:
    """Some trace events switched on, and the log where they come to; a context manager.

    Where the log goes to a file, it stays there and keeps the traced lines; else it goes to a file
    of ours meanwhile.

    Args:
        monitor: of the QEMU.
        pid: its process.
        events: names.
    """

    def __init__(self, monitor: Monitor, pid: int, events: Sequence[str]) -> None:
        self._monitor = monitor
        self._pid = pid
        self._events = events
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        recover(self._monitor, self._pid)
        events = [name for name in (_PROBE, *self._events) if not self._is_on(name)]
        self._before = _Before(events, procfs.fd_links(self._pid).get(2, ""))
        with ExitStack() as undo:
            self._place = undo.enter_context(LogPlace(self._pid))
            journal = undo.enter_context(Journal(self._place.journal))
            journal.begin(msgspec.json.encode(self._before))
            undo.callback(_put_back, self._monitor, self._pid, self._place, journal, self._before)
            self._tail = self._find() or self._redirect()
            for name in self._events:
                self._switch(name, on=True)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._undo.close()

    def lines(self) -> list[str]:
        """What was logged since, by whomever."""
        return self._tail.lines()

    def _is_on(self, name: str) -> bool:
        [event] = ask(self._monitor, list[_Event], "trace-event-get-state", name=name)
        if event.state == "unavailable":
            raise HostError(f"{self._monitor.name}: this QEMU was built without trace event {name}")
        return event.state == "enabled"

    def _switch(self, name: str, *, on: bool) -> None:
        self._monitor.execute("trace-event-set-state", name=name, enable=on)

    def _find(self) -> Tail | None:
        """The end of the file that the log goes to, if it is one."""
        tails = writable_files(self._pid)
        if tails:
            self._probe()
        return next((it for it in tails if _shows_probe(it)), None)

    def _redirect(self) -> Tail:
        self._check_can_go_back()
        self._place.make_log(self._pid)
        if complaint := send_log_to(self._monitor, self._place.name):
            raise HostError(
                f"{self._monitor.name}: QEMU may not log where it is to be read: {complaint}"
            )
        tail = Tail(self._place.log, 0)
        self._probe()
        if not _shows_probe(tail):
            raise HostError(
                f"{self._monitor.name}: QEMU's log shows no trace: it was built with another "
                "trace backend than `log`, and that alone tells slot ids"
            )
        return tail

    def _check_can_go_back(self) -> None:
        arguments = command_line(self._pid)
        for option, value in pairwise(arguments):
            if option == "-D" or (option == "-trace" and "file=" in value):
                raise HostError(
                    f"QEMU's log ({option} {value}) is no file that it has open; nothing was done"
                )
        if self._before.stderr.startswith("socket:"):
            events = ask(self._monitor, list[_Event], "trace-event-get-state", name="*")
            if "-d" in arguments or any(event.state == "enabled" for event in events):
                raise HostError(
                    "QEMU is logging (-d, or a trace event) to a socket, which it could not open "
                    "again; nothing was done"
                )

    def _probe(self) -> None:
        """Have the log show a line, if it can."""
        self._switch(_PROBE, on=True)
        self._monitor.execute("query-version")
        if _PROBE in self._before.events:
            self._switch(_PROBE, on=False)


def recover(monitor: Monitor, pid: int) -> bool:
    """Put back what a killed kvmenc left switched on in a QEMU.

    Args:
        monitor: of the QEMU.
        pid: its process.

    Returns:
        Whether there was anything.

    Raises:
        HostError: the other one lives and is at it, or QEMU does not answer.
    """
    with LogPlace(pid) as place, Journal(place.journal) as journal:
        content = journal.resume()
        if content is None:
            return False
        try:
            before = msgspec.json.decode(content, type=_Before)
        except (ValueError, RecursionError):
            before = None  # killed before it had changed anything
        _put_back(monitor, pid, place, journal, before)
    return True


def _put_back(
    monitor: Monitor, pid: int, place: LogPlace, journal: Journal, before: _Before | None
) -> None:
    """Everything, unless QEMU lives and does not answer: then the journal stays."""
    complaint = ""
    try:
        if before:
            for name in before.events:
                monitor.execute("trace-event-set-state", name=name, enable=False)
            if place.log.exists():
                complaint = send_log_back(monitor, pid, before.stderr)
    except KvmencError:
        if place.is_of(pid):
            raise
    place.log.unlink(missing_ok=True)
    journal.forget()
    if complaint:
        raise HostError(f"{monitor.name}: QEMU cannot log to where it did: {complaint}")


def _shows_probe(tail: Tail) -> bool:
    return any(_PROBE in line for line in tail.lines())
