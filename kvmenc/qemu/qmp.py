"""A running QEMU asked over QMP. Nothing here changes it: every command is a query."""

from __future__ import annotations

import asyncio
import logging
import re
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from qemu.qmp import ConnectError, QMPClient, QMPError

from kvmenc.errors import HostError, InputError
from kvmenc.qemu.join import from_mtree
from kvmenc.qemu.mtree import parse_mtree
from kvmenc.qemu.ramblock import parse_ramblock
from kvmenc.qemu.text import QemuText

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from kvmenc.qemu.join import QemuLayout

__all__ = ["Qmp", "read_layout"]

# QEMU answers from its main loop, which a busy guest or a migration may hold for a second or two.
PATIENCE_S = 10.0
# A guest that boots maps its memory anew all the time, each time within milliseconds.
_TRIES = 5
_HOST_ADDRESS = re.compile(r"Host virtual address for 0x[0-9a-f]+ \(.*\) is 0x([0-9a-f]{1,16})")

# The library reports its errors twice, raised and logged; a log without a handler goes to stderr.
logging.getLogger("qemu.qmp").addHandler(logging.NullHandler())

T = TypeVar("T")


class Qmp:
    """A connection to a QMP socket; a context manager that closes it.

    Args:
        socket: path of a UNIX socket on which QEMU listens.
        patience_s: how long any answer may take.

    Raises:
        HostError: nobody listens, or what does is busy or no QEMU.
    """

    def __init__(self, socket: Path, patience_s: float = PATIENCE_S) -> None:
        self._socket = socket
        self._patience_s = patience_s
        self._client = QMPClient()
        self._cleanup = ExitStack()
        self._runner = self._cleanup.enter_context(asyncio.Runner())
        try:
            self._await(self._client.connect(str(socket)), "connecting by QMP")
        except BaseException:
            self._cleanup.close()
            raise
        self._cleanup.callback(self._disconnect)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    def monitor(self, line: str) -> QemuText:
        """The answer of the human monitor, which alone knows of memory regions.

        Raises:
            HostError: QEMU does not answer, or not with text.
        """
        arguments = {"command-line": line}
        answer = self._await(self._client.execute("human-monitor-command", arguments), line)
        if not isinstance(answer, str):
            raise HostError(f"{self._socket}: {line}: QEMU answers with no text")
        return QemuText(f"{self._socket}: {line}", answer)

    def host_addr(self, gpa: int) -> int:
        """Where a guest physical address lies in QEMU.

        Raises:
            HostError: QEMU does not answer.
            InputError: there is no memory.
        """
        answer = self.monitor(f"gpa2hva {gpa:#x}")
        match = _HOST_ADDRESS.fullmatch(answer.content.strip())
        if not match:
            raise answer.error(1, "QEMU has no host address", answer.content)
        return int(match[1], 16)

    def _await(self, coroutine: Coroutine[Any, Any, T], what: str) -> T:
        try:
            return self._runner.run(asyncio.wait_for(coroutine, self._patience_s))
        except TimeoutError as error:
            raise HostError(
                f"{self._socket}: no answer ({what}) within {self._patience_s:g} s; a QMP socket "
                "serves one client at a time: is another connected?"
            ) from error
        except (ConnectError, QMPError, OSError, EOFError) as error:
            raise HostError(f"{self._socket}: {what}: {_one_line(error)}") from error

    def _disconnect(self) -> None:
        with suppress(HostError):
            self._await(self._client.disconnect(), "disconnect")


def read_layout(qmp: Qmp) -> QemuLayout:
    """A QEMU's layout, of one moment: asked again while the guest changes it.

    Raises:
        HostError: QEMU does not answer, or the layout does not hold still.
        InputError: it answers in a format that is not known.
    """
    for _ in range(_TRIES):
        mtree = qmp.monitor("info mtree -f")
        blocks = qmp.monitor("info ramblock")
        try:
            layout = from_mtree(parse_mtree(mtree), parse_ramblock(blocks), qmp.host_addr)
        except InputError:
            if qmp.monitor("info mtree -f") == mtree:
                raise
            continue
        if qmp.monitor("info mtree -f") == mtree and qmp.monitor("info ramblock") == blocks:
            return layout
    raise HostError("the guest's memory layout does not hold still: is it booting? Try again")


def _one_line(error: BaseException) -> str:
    """What the operating system says, if anything; else what the library does."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__
    return " ".join(str(error).split()) or type(error).__name__
