"""Where migrations go, and what that carries."""

from __future__ import annotations

import sys
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from kvmenc.link import look
from tests.qemu import sendbuffer, sink, swallow
from tests.qemu.cable import THERE, Cable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.qemu.machine import Machine

Kind = Literal["exec", "file", "tcp"]

#: What a pipe into another process of this machine carries at least; only the pause goes at it.
PIPE_BYTES_PER_S = 1e9


class Transport(Protocol):
    """A way for migrations.

    Attributes:
        link_bytes_per_s: what it carries.
        send_buffer_bytes: what it takes at once; None: not known.
        netns: where QEMU must run; none: anywhere.
        says: of the link, for a reader.
    """

    link_bytes_per_s: float
    send_buffer_bytes: float | None
    netns: str
    says: str

    def open(self, qemu: Machine) -> AbstractContextManager[str]:
        """A URI for one migration of this machine."""


class Pipe:
    """Another process reads the stream.

    Args:
        command: what reads, in a shell.
        file: it writes that, which is then removed.
    """

    link_bytes_per_s = PIPE_BYTES_PER_S
    send_buffer_bytes: float | None = None
    netns = ""

    def __init__(self, command: str, file: Path | None = None) -> None:
        self._command = command
        self._file = file
        self.says = f"A pipe into a process that {'writes a file' if file else 'reads'}: 1 GB/s."

    @contextmanager
    def open(self, qemu: Machine) -> Iterator[str]:
        try:
            yield f"exec:{self._command}"
        finally:
            if self._file:
                self._file.unlink(missing_ok=True)


class Tcp:
    """A TCP connection over a shaped cable.

    Args:
        cable: connected.
        folder: for other QEMUs, into which the guest moves; None: a program takes what comes.
    """

    def __init__(self, cable: Cable, folder: Path | None) -> None:
        self._cable = cable
        self._folder = folder
        self._number = 0
        goodput = look(THERE, cable.near, 0.1).goodput_bytes_per_s
        assert goodput is not None
        self.link_bytes_per_s = goodput
        self.netns = cable.near
        carried, self.send_buffer_bytes = self._measured()
        self.says = (
            "TCP between two network namespaces, over veth shaped by tbf; before, a transfer had "
            f"{carried / 1e6:.1f} MB/s."
        )

    def _measured(self) -> tuple[float, float | None]:
        """Bytes per second of a transfer, and what a connection takes at once."""
        with self._sink() as port:
            command = [sys.executable, "-m", sendbuffer.__name__, THERE, str(port)]
            with self._cable.start(self._cable.near, command) as process:
                assert process.stdout
                carried, at_once = map(float, process.stdout.readline().split())
        return carried, at_once

    @contextmanager
    def open(self, qemu: Machine) -> Iterator[str]:
        with ExitStack() as stack:
            if self._folder:
                self._number += 1
                folder = self._folder / f"twin-{self._number}"
                twin = stack.enter_context(qemu.twin(folder, self._cable.far))
                yield twin.listen(THERE)
            else:
                yield f"tcp:{THERE}:{stack.enter_context(self._sink())}"

    @contextmanager
    def _sink(self) -> Iterator[int]:
        """Its port."""
        process = self._cable.start(self._cable.far, [sys.executable, "-m", sink.__name__])
        try:
            assert process.stdout
            yield int(process.stdout.readline())
        finally:
            process.kill()
            process.communicate()


@dataclass(frozen=True, slots=True)
class By:
    """How a scenario's migrations travel.

    Attributes:
        kind: into another process, into a file, or by TCP.
        link_mb_per_s: of TCP: what the cable is shaped to.
        into_qemu: of TCP: another QEMU takes the guest in; else a program takes the bytes.
        fast: of another process: it reads without copying.
    """

    kind: Kind
    link_mb_per_s: float = 0
    into_qemu: bool = False
    fast: bool = False

    @contextmanager
    def made(self, folder: Path) -> Iterator[Transport]:
        """Made for one scenario, and gone afterwards."""
        if self.kind == "tcp":
            with Cable(self.link_mb_per_s * 1e6) as cable:
                yield Tcp(cable, folder if self.into_qemu else None)
        elif self.kind == "file":
            file = folder / "stream"
            yield Pipe(f"cat >{file}", file)
        else:
            yield Pipe(f"{sys.executable} {swallow.__file__}" if self.fast else "cat >/dev/null")


PIPE, FAST_PIPE, FILE = By("exec"), By("exec", fast=True), By("file")
