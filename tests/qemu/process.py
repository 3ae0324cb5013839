"""A QEMU process: started, spoken to over QMP, and always ended."""

from __future__ import annotations

import asyncio
import os
import resource
import subprocess
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self, TypeVar

from qemu.qmp import QMPClient, QMPError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from pathlib import Path

    from tests.qemu.setup import Setup

_PATIENCE_S = 30.0
#: Where tests run one by one, before whatever else keeps the machine busy; without the right to,
#: nice says so and goes on. Among others, behind them: these guests wait by counting.
FIRST = ("nice", "-n", "5" if "PYTEST_XDIST_WORKER" in os.environ else "-10")

T = TypeVar("T")


class Qemu:
    """QEMU, running; a context manager that ends it.

    Args:
        folder: made for the sockets, the BIOS and the logs.
        bios: 64 KiB of code.
        board: QEMU's machine type.
        setup: how it is started else.

    Attributes:
        second_socket: a QMP socket that nobody is connected to.
    """

    def __init__(self, folder: Path, bios: bytes, board: str, setup: Setup) -> None:
        self._folder = folder
        self.second_socket = folder / "second-qmp"
        self._qmp = QMPClient()
        self._cleanup = ExitStack()
        try:
            self._start(bios, setup, setup.arguments(board))
        except BaseException:
            self._cleanup.close()
            raise

    def _start(self, bios: bytes, setup: Setup, arguments: list[str]) -> None:
        self._folder.mkdir()
        socket, image, log = (self._folder / name for name in ("qmp", "bios", "stderr"))
        image.write_bytes(bios.rjust(setup.bios_kib << 10, b"\0"))
        self._runner = self._cleanup.enter_context(asyncio.Runner())
        self._await(self._qmp.start_server(str(socket)))
        arguments += ["-bios", str(image), "-qmp", f"unix:{socket}"]
        arguments += ["-qmp", f"unix:{self.second_socket},server=on,wait=off"]
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [*FIRST, *setup.command, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        self._cleanup.callback(self._end)
        limit_s = setup.cpu_limit_s
        resource.prlimit(self.pid, resource.RLIMIT_CPU, (limit_s, limit_s))
        try:
            self._await(self._qmp.accept())
        except (TimeoutError, QMPError, EOFError):
            raise AssertionError(f"QEMU does not come up: {log.read_text()}") from None
        self._cleanup.callback(self._disconnect)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._cleanup.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def _end(self) -> None:
        self._process.kill()
        self._process.wait(_PATIENCE_S)

    def _disconnect(self) -> None:
        with suppress(QMPError, OSError, EOFError):
            self._await(self._qmp.disconnect())

    def _await(self, coroutine: Coroutine[Any, Any, object]) -> object:
        return self._runner.run(asyncio.wait_for(coroutine, _PATIENCE_S))

    def wait_for(
        self, what: str, look: Callable[[], T | None], patience_s: float = _PATIENCE_S
    ) -> T:
        """Look again and again, until there is something to be seen; returns that."""
        deadline = time.monotonic() + patience_s
        while not (seen := look()):
            assert time.monotonic() < deadline, f"waited {patience_s:g} s for {what}"
            time.sleep(0.01)
        return seen

    def command(self, name: str, /, **arguments: object) -> object:
        """A QMP command; underscores in the names of arguments stand for hyphens."""
        members = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self._await(self._qmp.execute(name, members))

    def monitor(self, line: str) -> str:
        """A command of the human monitor, and its answer."""
        return str(self.command("human-monitor-command", command_line=line))
