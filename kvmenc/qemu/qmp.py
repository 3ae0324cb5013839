"""A running QEMU asked over its QMP socket."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from qemu.qmp import ConnectError, ExecuteError, QMPClient, QMPError, Runstate

from kvmenc.errors import HostError
from kvmenc.qemu.monitor import CommandError, Monitor, one_line, qmp_arguments, what_is_asked

if TYPE_CHECKING:
    from collections.abc import Coroutine

__all__ = ["Qmp"]

# QEMU answers from its main loop, which a busy guest or a migration may hold for a second or two.
PATIENCE_S = 10.0

# The library reports its errors twice, raised and logged; a log without a handler goes to stderr.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

T = TypeVar("T")

#: Why there is no connection, and what to do.
_ADVICE = {
    errno.ENOENT: ": start QEMU with -qmp unix:PATH,server=on,wait=off, or name the socket it has",
    errno.EACCES: ": be who runs QEMU, or root",
    errno.ECONNREFUSED: ": the QEMU that made it has ended",
}


class Qmp(Monitor):
    """A connection to a QMP socket.

    Args:
        socket: path of a UNIX socket on which QEMU listens.
        patience_s: how long any answer may take.

    Raises:
        HostError: nobody listens, or what does is busy or no QEMU.
    """

    def __init__(self, socket: Path, patience_s: float = PATIENCE_S) -> None:
        self.name = str(socket)
        self._patience_s = patience_s
        self._client = QMPClient()
        self._cleanup = ExitStack()
        self._runner = self._cleanup.enter_context(asyncio.Runner())
        self._cleanup.callback(self._disconnect)
        try:
            self._await(self._client.connect(self.name), "connecting by QMP")
        except BaseException:
            self._cleanup.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    def execute(self, command: str, **arguments: object) -> object:
        """As ``Monitor``."""
        what = what_is_asked(command, arguments)
        return self._await(self._client.execute(command, qmp_arguments(arguments)), what)

    def _await(self, coroutine: Coroutine[Any, Any, T], what: str) -> T:
        where = f"{self.name}: {what}"
        try:
            return self._runner.run(_within(self._patience_s, coroutine))
        except TimeoutError as error:
            raise HostError(
                f"{self.name}: no answer ({what}) within {self._patience_s:g} s; a QMP socket "
                "serves one client at a time: is another connected?"
            ) from error
        except ExecuteError as error:
            raise CommandError(where, error.error_class, str(error)) from error
        except (ConnectError, QMPError, OSError, EOFError, ValueError, RecursionError) as error:
            # The last two the library lets through: of JSON whose numbers or nests are too long.
            raise HostError(f"{where}: {_cause(error)}{self._why(error)}") from error
        except AssertionError as error:
            # What the library does if the socket closes just when the session begins.
            raise HostError(f"{where}: QEMU closes the socket") from error

    def _why(self, error: Exception) -> str:
        """What the library's word for it may mean."""
        if not isinstance(error, ConnectError):
            return ": QEMU ended, or closed the socket" if _cause(error) == "Disconnected" else ""
        if os.access(self.name, os.F_OK) and not Path(self.name).is_socket():
            return ", for it is no socket"
        refusal = _refusal(error)
        return _ADVICE.get(refusal.errno or 0, "") if refusal else ""

    def _disconnect(self) -> None:
        if self._client.runstate is not Runstate.IDLE:
            with suppress(HostError):
                self._await(self._client.disconnect(), "disconnect")


async def _within(seconds: float, coroutine: Coroutine[Any, Any, T]) -> T:
    """As ``asyncio.wait_for``, which before Python 3.12 loses a Ctrl-C that meets the answer."""
    async with asyncio.timeout(seconds):
        return await coroutine


def _cause(error: BaseException) -> str:
    """What the operating system says, if anything; else what the library does."""
    refusal = _refusal(error)
    if refusal and refusal.strerror:
        return refusal.strerror
    return one_line(str(error)) or type(error).__name__


def _refusal(error: BaseException) -> OSError | None:
    """The operating system's own error behind it."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause
        cause = cause.__cause__
    return None
